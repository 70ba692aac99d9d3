"""Both clients against a running server."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.app import ROUTES
from api.openapi import openapi_document
from captionfleet_client import (
    AccessDenied,
    Archive,
    Conflict,
    Direct,
    Files,
    InvalidRequest,
    NotFound,
    Prefix,
)
from tests.client.conftest import Connect, Either
from tests.e2e.cli.commands import Server
from tests.pictures import jpeg_bytes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(server: Server, connect: Connect) -> Either:
    return connect(server.url)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.jpg", 'odd "näme".jpg', "c.jpg")]
    for number, path in enumerate(paths):
        path.write_bytes(jpeg_bytes(number))
    return paths


def test_a_job_from_submission_to_deletion(client: Either, photos: list[Path]) -> None:
    photos[2].write_bytes(b"\xff\xd8\xff nothing")
    sent: list[tuple[int, int]] = []
    seen: list[float] = []
    job = client.submit(
        Files(photos),
        options={"num_beams": 1},
        metadata={"album": "summer"},
        progress=lambda done, total: sent.append((done, total)),
    )
    assert sent[-1][0] == sent[-1][1] > sum(path.stat().st_size for path in photos)
    job = client.wait(job, timeout=60, progress=lambda job: seen.append(job.progress))
    assert (job.status, job.counts.succeeded, job.counts.failed, job.counts.final) == ("completed", 2, 1, 3)
    assert (job.metadata, job.options["num_beams"], seen[-1]) == ({"album": "summer"}, 1, 1.0)
    assert job.id in [listed.id for listed in client.jobs("completed", limit=50)]

    items = client.results(job)
    assert [item.name for item in items] == [path.name for path in photos]
    assert items[0].caption
    assert items[2].error.code == "image_corrupt"
    assert client.items(job, status="failed") == items[2:]
    edited = client.edit(job, 0, "my own words")
    assert (edited.text, client.item(job, 0).caption) == ("my own words", items[0].caption)
    assert [item.position for item in client.items(job, q="own words")] == [0]
    rows = list(csv.DictReader(io.StringIO(b"".join(client.download(job, "csv")).decode())))
    assert [row["status"] for row in rows] == ["succeeded", "succeeded", "failed"]

    assert client.wait(client.retry(job), timeout=60).counts.failed == 1
    with pytest.raises(Conflict, match=r"\(job_state_conflict\)"):
        client.cancel(job)
    client.delete(job)
    with pytest.raises(NotFound) as caught:
        client.job(job)
    assert caught.value.code == "job_not_found"


def test_direct_uploads_and_archives_become_jobs(client: Either, photos: list[Path], tmp_path: Path) -> None:
    job = client.wait(client.submit(Direct(photos, state=tmp_path / "state", at_once=2)), timeout=60)
    assert [item.name for item in client.results(job)] == [path.name for path in photos]
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in photos:
            archive.write(path, path.name)
    packed = client.wait(client.submit(Archive(tmp_path / "photos.zip")), timeout=60)
    assert packed.counts.succeeded == 3


def test_a_list_that_is_too_long_for_json_is_a_job_all_the_same(
    client: Either, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captionfleet_client.sources.JSON_BYTES", 100)
    job = client.submit(Direct(photos), options={"num_beams": 1}, priority="low")
    assert (job.source, job.priority, job.options["num_beams"]) == ("manifest", "low", 1)
    assert [item.name for item in client.results(client.wait(job, timeout=60))] == [
        path.name for path in photos
    ]


def test_the_same_key_is_the_same_job(client: Either, photos: list[Path]) -> None:
    key = f"summer-{photos[0].parent.name}"
    first = client.submit(Files(photos), idempotency_key=key)
    assert client.submit(Files(photos), idempotency_key=key).id == first.id
    with pytest.raises(Conflict) as caught:
        client.submit(Files(photos[:1]), idempotency_key=key)
    assert caught.value.code == "idempotency_conflict"
    # So slow that it still runs when the cancellation comes.
    slow = client.submit(Files(photos * 100), options={"use_cache": False})
    assert client.cancel(slow).status in ("canceling", "canceled")


def test_one_image(client: Either, photos: list[Path]) -> None:
    [model] = client.models()
    item = client.caption(photos[0], {"model": model.name, "num_beams": 1})
    assert (item.status, item.name) == ("succeeded", "a.jpg")
    assert client.caption(jpeg_bytes(1)).caption
    assert client.caption(b"no image").error.code == "unsupported_format"


def test_what_the_server_refuses(client: Either, photos: list[Path]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.submit(Files(photos), options={"model": "huge"})
    assert caught.value.code == "model_not_available"
    with pytest.raises(AccessDenied) as denied:
        client.submit(Prefix("s3://bucket/photos/"))
    assert denied.value.code == "forbidden"


def test_the_document_runs_as_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dog.jpg", "cow.jpg"):
        shutil.copy(ROOT / "examples/photos" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    code = "\n".join(blocks).replace("http://127.0.0.1:8080", server.url)
    names: dict[str, Any] = {"__name__": "document"}
    exec(compile(code, "docs/client.md", "exec"), names)
    assert names["job"].counts.succeeded + names["job"].counts.queued == 2
    assert names["item"].caption
    assert (tmp_path / "captions.csv").read_text().count("dog.jpg") >= 1
    assert not (tmp_path / "summer.upload").exists()


def test_generators_are_told_what_a_file_is() -> None:
    """openapi-python-client takes a part without the format for text, and sends the name of an object."""
    files = [schema for schema in _schemas(openapi_document(ROUTES)) if "contentMediaType" in schema]
    assert len(files) == 5
    assert {schema["format"] for schema in files} == {"binary"}


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _schemas(entry)
    if isinstance(value, dict):
        yield value


@pytest.mark.parametrize("example", ["caption_folder.py", "caption_async.py"])
def test_the_examples_run(server: Server, example: str) -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / example, ROOT / "examples/photos", server.url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "dog.jpg\ta brown and black dog" in run.stdout
    assert len(run.stdout.splitlines()) == 11
