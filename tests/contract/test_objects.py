"""The object store, the same over a folder and over S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs.errors import ItemError, StorageUnavailable
from jobs.objects import ObjectStore, image_key
from jobs.objects.folder import FolderObjects
from jobs.objects.s3 import S3, S3Objects
from jobs.objects.s3_reads import PATIENCE
from tests import servers


@pytest.fixture(params=["folder", "s3"])
def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    """An empty object store, once per kind."""
    if request.param == "folder":
        yield FolderObjects(tmp_path / "objects")
        return
    server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield S3Objects(S3(), server.bucket)


def put(objects: ObjectStore, key: str, *parts: bytes) -> None:
    with objects.batch() as batch:
        writer = batch.open(key, "image/jpeg")
        for part in parts:
            writer.write(part)
        writer.close()
        batch.flush()


def test_what_was_flushed_is_read_back(objects: ObjectStore) -> None:
    with objects.batch() as batch:
        for n in range(50):
            writer = batch.open(image_key("job_1", n), "image/jpeg")
            writer.write(b"first ")
            writer.write(str(n).encode())
            writer.close()
        batch.flush()
    assert objects.read(image_key("job_1", 7), 100) == b"first 7"
    with objects.open(image_key("job_1", 49)) as file:
        assert file.read() == b"first 49"


def test_a_discarded_object_is_not_there(objects: ObjectStore) -> None:
    with objects.batch() as batch:
        writer = batch.open("jobs/job_1/0/0", "image/jpeg")
        writer.write(b"half")
        writer.discard()
        batch.flush()
    with pytest.raises(ItemError) as failure:
        objects.read("jobs/job_1/0/0", 100)
    assert failure.value.code == "object_not_found"


def test_empty_and_large_objects(objects: ObjectStore) -> None:
    put(objects, "jobs/job_1/0/0")
    assert objects.read("jobs/job_1/0/0", 10) == b""
    block = bytes(1024 * 1024)
    put(objects, "jobs/job_1/0/1", block, block, block)
    assert len(objects.read("jobs/job_1/0/1", 3 * len(block))) == 3 * len(block)
    with pytest.raises(ItemError) as failure:
        objects.read("jobs/job_1/0/1", 3 * len(block) - 1)
    assert failure.value.code == "image_too_large"


def test_a_prefix_is_deleted_and_its_neighbours_stay(objects: ObjectStore) -> None:
    put(objects, "jobs/job_1/0/0", b"a")
    put(objects, "jobs/job_1/1/1000", b"b")
    put(objects, "jobs/job_10/0/0", b"c")
    assert objects.delete_prefix("jobs/job_1/") == 2
    assert objects.delete_prefix("jobs/job_1/") == 0
    with pytest.raises(ItemError):
        objects.read("jobs/job_1/0/0", 10)
    assert objects.read("jobs/job_10/0/0", 10) == b"c"


def test_check_says_whether_it_answers(objects: ObjectStore) -> None:
    objects.check()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    objects = FolderObjects(tmp_path / "file")
    with pytest.raises(StorageUnavailable):
        objects.check()
    with pytest.raises(StorageUnavailable), objects.batch() as batch:
        batch.open("jobs/job_1/0/0", "image/jpeg")


def test_keys_never_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    objects = FolderObjects(tmp_path / "objects")
    for key in ("../secret", "jobs/../../secret", "/etc/passwd", ""):
        with pytest.raises(ItemError):
            objects.read(key, 100)


def test_an_s3_server_that_is_not_there_is_a_transient_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    objects = S3Objects(S3(), "bucket")
    with pytest.raises(StorageUnavailable):
        objects.check()
    with pytest.raises(StorageUnavailable):
        objects.read("jobs/job_1/0/0", 10)


def test_a_linked_file_is_an_object(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg")
    objects = FolderObjects(tmp_path / "objects")
    objects.link("jobs/job_1/0/0", photo)
    assert objects.read("jobs/job_1/0/0", 10) == b"jpeg"
    objects.delete_prefix("jobs/job_1/")
    assert photo.exists()


@pytest.fixture
def bucket(s3: servers.S3, monkeypatch: pytest.MonkeyPatch) -> tuple[S3, str]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return S3(), s3.bucket


def test_clients_are_sent_to_the_server_by_its_public_address(bucket: tuple[S3, str]) -> None:
    s3, name = bucket
    inside = s3.client.meta.endpoint_url
    outside = inside.replace("127.0.0.1", "localhost")
    put(S3Objects(s3, name), "jobs/job_1/0/0", b"jpeg")
    url = S3Objects(S3(outside), name).url("jobs/job_1/0/0", "image/jpeg")
    assert url is not None
    assert url.startswith(outside)
    # The server checks signatures, and the address is signed.
    assert httpx.get(url).content == b"jpeg"
    assert httpx.get(url.replace(outside, inside)).status_code == 403


@pytest.mark.parametrize(
    "key",
    [
        "plain/0/1.jpg",
        "a b/c=d@e (1).jpg",
        "été/ü.jpg",
        "100%/%20.jpg",
        "x/.../..y",
        "q?r#s&t+u",
        "~*",
    ],
)
def test_any_key_is_read_as_it_stands(bucket: tuple[S3, str], key: str) -> None:
    s3, name = bucket
    s3.client.put_object(Bucket=name, Key=key, Body=key.encode())
    assert s3.read(name, key, 100) == key.encode()


def test_bytes_come_by_the_fast_way_and_errors_by_boto3(
    bucket: tuple[S3, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, name = bucket
    s3.client.put_object(Bucket=name, Key="a/b.jpg", Body=b"bytes")
    asked: list[str] = []
    s3.client.meta.events.register("before-call.s3.GetObject", lambda **_: asked.append("GetObject"))
    assert s3.read(name, "a/b.jpg", 100) == b"bytes"
    assert not asked
    with pytest.raises(ItemError, match="more than 4 bytes"):
        s3.read(name, "a/b.jpg", 4)
    for where, key in ((name, "a/none.jpg"), ("no-such-bucket", "a/b.jpg")):
        with pytest.raises(ItemError) as failure:
            s3.read(where, key, 100)
        assert failure.value.code == "object_not_found"
    assert len(asked) == 2
    # Whatever breaks the fast way, boto3 reads; after a while the fast way is not tried any more.
    monkeypatch.setattr("obstore.get", _broken)
    for _ in range(PATIENCE):
        assert s3.read(name, "a/b.jpg", 100) == b"bytes"
    monkeypatch.undo()
    assert s3.read(name, "a/b.jpg", 100) == b"bytes"
    assert len(asked) == 2 + PATIENCE + 1


def test_a_throttle_that_passes_costs_the_fast_way_only_for_a_while(
    bucket: tuple[S3, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.objects.s3_reads.ALONE_S", 0.0)
    s3, name = bucket
    s3.client.put_object(Bucket=name, Key="a/b.jpg", Body=b"bytes")
    asked: list[str] = []
    s3.client.meta.events.register("before-call.s3.GetObject", lambda **_: asked.append("GetObject"))
    with monkeypatch.context() as throttled:
        throttled.setattr("obstore.get", _broken)
        for _ in range(PATIENCE):
            assert s3.read(name, "a/b.jpg", 100) == b"bytes"
    assert s3.read(name, "a/b.jpg", 100) == b"bytes"
    assert len(asked) == PATIENCE


def _broken(*_: object) -> None:
    raise OSError("the connection was closed")
