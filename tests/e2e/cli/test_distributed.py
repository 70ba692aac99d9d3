"""`captionfleet api` and `captionfleet worker` on PostgreSQL, Redis and S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.cli.commands import Ran, captionfleet, command, environment
from tests.pictures import jpeg_bytes
from tests.processes import Process, reserve_port, wait_until

if TYPE_CHECKING:
    from tests.servers import S3, Redis


def test_a_job_through_api_and_worker(postgres_url: str, redis_server: Redis, s3: S3, tmp_path: Path) -> None:
    port = reserve_port()
    settings = s3.environment | {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_server.url,
        "CAPTIONFLEET_BUCKET": f"{s3.bucket}-new",
        "CAPTIONFLEET_ALIVE_FILE": str(tmp_path / "alive"),
        "CAPTIONFLEET_URL": f"http://127.0.0.1:{port}",
    }

    def run(*arguments: str) -> Ran:
        return captionfleet(tmp_path, *arguments, **settings)

    early = run("api")
    assert early.status == 2
    assert early.error.endswith("run `captionfleet migrate`")
    made, found = (run("migrate", "--create-bucket") for _ in range(2))
    assert "Made the bucket" in made.complaints
    assert "is there" in found.complaints
    source = s3.new_bucket()
    s3.client().put_object(Bucket=source, Key="in/a photo.jpg", Body=jpeg_bytes(1))
    made = run("keys", "create", "--owner", "ada", "--grant", f"s3://{source}/in/")
    settings["CAPTIONFLEET_API_KEY"] = made.output.strip()

    folder = tmp_path / "process"
    folder.mkdir()
    api, worker = (
        Process([command(), *words], environment=environment(folder, **settings), folder=folder)
        for words in (("api", "--port", str(port)), ("worker",))
    )
    try:
        api.start(lambda: run("jobs").status == 0, timeout=90)
        worker.start()
        (tmp_path / "upload.jpg").write_bytes(jpeg_bytes(2))
        (tmp_path / "list.ndjson").write_text(
            f'{{"s3_uri": "s3://{source}/in/a photo.jpg", "custom_id": "x"}}\n'
        )
        for what, name in (("upload.jpg", "upload.jpg"), ("list.ndjson", "x")):
            ran = run("submit", what, "--wait", "-o", "out.jsonl", "--num-beams", "2")
            assert ran.status == 0, ran.complaints + worker.output
            (item,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
            assert item["custom_id"] == name
            assert item["caption"]
        assert run("submit", f"s3://{source}/out/b.jpg").error.endswith(" (forbidden)")
        wait_until((tmp_path / "alive").exists)
        assert worker.stop(timeout=40) == 0
        assert api.stop(timeout=40) == 0
    finally:
        worker.kill()
        api.kill()
    assert "Traceback" not in api.output + worker.output
