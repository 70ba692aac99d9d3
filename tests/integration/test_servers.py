"""The test servers do what the other tests rely on."""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.pictures import jpeg_bytes, png_bytes
from tests.processes import Process, reserve_port, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.servers import S3, Postgres, Redis

ROOT = Path(__file__).parents[2]


def test_redis_forgets_everything_when_killed(redis_server: Redis) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.set("name", "value")
        redis_server.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            client.ping()
        redis_server.start()
        assert client.get("name") is None


def test_paused_redis_keeps_clients_waiting(redis_server: Redis) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url, socket_timeout=0.2, retry=None) as client:
        redis_server.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        redis_server.resume()
        assert client.ping()


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_postgres_keeps_committed_rows(postgres: Postgres, postgres_url: str, end: str) -> None:
    database = postgres_url.rsplit("/", 1)[1]
    postgres.execute("CREATE TABLE kept AS SELECT 7 AS number", database)
    if end == "restart":
        postgres.restart()
    else:
        postgres.kill()
        postgres.start()
    assert postgres.execute("SELECT number FROM kept", database) == [(7,)]


def test_s3_keeps_objects_and_checks_signatures(s3: S3) -> None:
    from botocore.exceptions import ClientError

    client = s3.client()
    client.put_object(Bucket=s3.bucket, Key="a/b c.jpg", Body=b"bytes")
    s3.kill()
    s3.start()
    assert client.get_object(Bucket=s3.bucket, Key="a/b c.jpg")["Body"].read() == b"bytes"
    client.close()
    s3.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"
    stranger = s3.client()
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|AccessDenied|403"):
        stranger.list_objects_v2(Bucket=s3.bucket)
    stranger.close()


def test_moto_has_queues(moto_service: S3) -> None:
    queues = moto_service.client("sqs")
    assert queues.create_queue(QueueName="events")["QueueUrl"].endswith("/events")
    queues.close()


def test_browser_runs_scripts(page: Page) -> None:
    page.set_content("<p>before</p><script>document.querySelector('p').textContent = 'after'</script>")
    assert page.inner_text("p") == "after"


ABANDONED = """
import os, signal, sys
from tests.processes import Process
from tests.servers import _answers
port = sys.argv[1]
child = Process([sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"])
child.start(lambda: _answers(int(port)))
print("started", child.log.parent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_children_and_folders_die_with_the_run() -> None:
    """A test run that is killed leaves no server and no folder behind."""
    port = reserve_port()
    command = [sys.executable, "-c", ABANDONED, str(port)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.stdout.startswith("started"), run.stderr
    folder = Path(run.stdout.split()[1])
    wait_until(lambda: not _listening(port), what="the server's end")
    wait_until(lambda: not folder.exists(), what="the folder's removal")


def _listening(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
    except OSError:
        return False
    return True


def test_a_process_that_dies_early_shows_its_output() -> None:
    process = Process([sys.executable, "-c", "raise SystemExit('no such option')"])
    with pytest.raises(AssertionError, match="no such option"):
        process.start(lambda: False)


def test_pictures_are_valid_and_distinct() -> None:
    assert len({jpeg_bytes(seed) for seed in range(200)} | {png_bytes(0)}) == 201
    with Image.open(io.BytesIO(jpeg_bytes(3))) as image:
        image.load()
        assert image.size == (64, 48)
