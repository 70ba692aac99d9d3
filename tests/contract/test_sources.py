"""Jobs whose images are found in the background: prefixes, manifests and archives, over real S3 servers."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from api.app import create_app
from jobs import archive_source, listing, manifest_source
from jobs.objects import job_prefix
from jobs.records import Item, Job
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store.schema import upgrade
from jobs.tables import ExpansionRow
from tests.contract.api.support import caption
from tests.contract.stores import LONG_AGO
from tests.pictures import jpeg_bytes
from tests.servers import S3

OWNER = "local"


@dataclass
class Service:
    """A service without keys, its API, and a stranger's bucket of which the one owner may read photos/."""

    services: Services
    http: FlaskClient
    s3: S3
    bucket: str

    def put(self, *keys: str, body: bytes = b"x") -> None:
        client = self.s3.client()
        for key in keys:
            client.put_object(Bucket=self.bucket, Key=key, Body=body)
        client.close()

    def submit(self, **request: Any) -> Any:
        answer = self.http.post("/v1/jobs", json=request)
        return answer.json

    def prefix(self, prefix: str, **request: Any) -> Any:
        return self.submit(s3_prefix=f"s3://{self.bucket}/{prefix}", **request)

    def expand(self) -> None:
        while self.services.expander.run_once():
            pass

    def job(self, job_id: str) -> Job:
        return self.services.store.jobs.get(OWNER, job_id)[0]

    def items(self, job_id: str) -> list[Item]:
        return [item for page in self.services.store.jobs.results(OWNER, job_id) for item in page]

    def found(self, submitted: Any) -> list[str]:
        """Expand a job; return the keys its items come from."""
        assert submitted["status"] == "preparing", submitted
        self.expand()
        return [item.source.removeprefix(f"s3://{self.bucket}/") for item in self.items(submitted["id"])]


@pytest.fixture(params=["sqlite-rclone", "postgresql-moto"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """A service, once per database and S3 server."""
    database, _, server = request.param.partition("-")
    name = "s3_service" if server == "rclone" else "moto_service"
    s3: S3 = dataclasses.replace(request.getfixturevalue(name))
    for variable, value in s3.environment.items():
        monkeypatch.setenv(variable, value)
    limits: dict[str, Any] = {"max_images": 50, "max_image_bytes": 20_000}
    if database == "sqlite":
        settings = Settings(data_dir=tmp_path, **limits)
    else:
        url = request.getfixturevalue("postgres_url")
        limits |= {"redis_url": "redis://localhost:1", "bucket": s3.new_bucket(), "require_keys": False}
        settings = Settings(database_url=url, **limits)
    services = build_services(settings)
    upgrade(services.store.database)
    made = Service(services, create_app(services).test_client(), s3, s3.new_bucket())
    services.store.keys.grant(OWNER, f"s3://{made.bucket}/photos/")
    yield made
    services.close()


# Prefixes


def test_a_prefix_is_listed_in_slices(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SLICE_ITEMS", 1)
    keys = [f"photos/2024/{n:02}.jpg" for n in range(12)] + ["photos/2024/deep/er/a b%20+é.JPEG"]
    service.put(*keys, "photos/2024/notes.txt", "photos/2023/other.jpg", "other/a.jpg")
    if service.services.settings.bucket:
        service.put("photos/2024/folder.jpg/")  # rclone keeps folders; this is what consoles make of them.
    job = service.prefix("photos/2024/")
    assert (job["source"], job["counts"]["total"]) == ("s3_prefix", 0)
    assert service.found(job) == sorted(keys)
    items = service.items(job["id"])
    assert (items[-1].name, items[-1].custom_id) == ("a b%20+é.JPEG", "deep/er/a b%20+é.JPEG")
    assert (service.job(job["id"]).status, service.job(job["id"]).error) == ("queued", None)


def test_a_crash_in_the_middle_neither_doubles_nor_loses(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 1)
    page = listing.list_after
    monkeypatch.setattr(listing, "list_after", lambda *args: (page(*args)[0][:4], len(page(*args)[0]) <= 4))
    monkeypatch.setattr(listing, "SLICE_ITEMS", 1)
    keys = [f"photos/{n:02}.jpg" for n in range(10)]
    service.put(*keys)
    job = service.prefix("photos/")
    service.services.expander.run_once()
    assert service.job(job["id"]).counts.total == 4
    # Another process took it up and died with the lease; what it listed was never written.
    dead = service.services.store.expansions.claim("dead", 30, (listing.KIND,))
    assert dead is not None
    assert service.services.expander.run_once() is False
    with service.services.store.database.write() as connection:
        connection.execute(update(ExpansionRow).values(lease_until=LONG_AGO))
    assert service.found({"status": "preparing"} | job) == keys
    # The one thought dead writes late: nothing happens.
    assert service.services.store.expansions.write(dead, [], None, None, 30).left is None
    assert service.job(job["id"]).counts.total == 10


def test_filters(service: Service) -> None:
    service.put("photos/a.jpg", "photos/b.png", "photos/c.raw", "photos/x/d.jpg", "photos/x/y/e.jpg")
    service.put("photos/large.jpg", body=bytes(300))
    hour = timedelta(hours=1)
    soon, ago = ((datetime.now(UTC) + sign * hour).isoformat() for sign in (1, -1))
    wanted = [
        ({"suffixes": [".PNG", ".raw"]}, ["photos/b.png", "photos/c.raw"]),
        ({"glob": "*.jpg"}, ["photos/a.jpg", "photos/large.jpg"]),
        ({"glob": "**/e.*"}, ["photos/x/y/e.jpg"]),
        ({"glob": "x/**"}, ["photos/x/d.jpg", "photos/x/y/e.jpg"]),
        ({"glob": "?.*", "suffixes": [".png"]}, ["photos/b.png"]),
        ({"min_size": 2}, ["photos/large.jpg"]),
        ({"max_size": 1, "glob": "*.jpg"}, ["photos/a.jpg"]),
        ({"modified_since": ago, "glob": "a.*"}, ["photos/a.jpg"]),
        ({"modified_since": soon}, []),
    ]
    for filter_, keys in wanted:
        assert service.found(service.prefix("photos/", filter=filter_)) == keys, filter_


def test_a_listing_that_breaks_half_way_keeps_what_it_found(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 1)
    page = listing.list_after
    monkeypatch.setattr(listing, "list_after", lambda *args: (page(*args)[0][:2], False))
    monkeypatch.setattr(listing, "SLICE_ITEMS", 1)
    service.put(*(f"photos/{n}.jpg" for n in range(5)))
    job = service.prefix("photos/")
    service.services.expander.run_once()
    [grant] = service.services.store.keys.grants(OWNER)
    service.services.store.keys.ungrant(grant)
    service.expand()
    seen = service.job(job["id"])
    assert (seen.status, seen.counts.total, seen.error and seen.error.code) == ("queued", 2, "forbidden")
    caption(service.services, job["id"])
    assert (service.job(job["id"]).status, service.job(job["id"]).error) == ("completed", seen.error)


def test_what_cannot_be_listed_fails_the_job_and_says_why(service: Service) -> None:
    service.services.store.keys.grant(OWNER, "s3://no-such-bucket-anywhere/")
    cases = [
        (service.submit(s3_prefix="s3://no-such-bucket-anywhere/"), "object_not_found"),
        (service.prefix("photos/nothing/"), "invalid_request"),
    ]
    service.expand()
    for submitted, code in cases:
        job = service.job(submitted["id"])
        assert (job.status, job.error and job.error.code) == ("failed", code)


def test_more_objects_than_a_job_may_have(service: Service) -> None:
    service.put(*(f"photos/{n}.jpg" for n in range(52)))
    job = service.prefix("photos/")
    assert len(service.found(job)) == 50
    error = service.job(job["id"]).error
    assert error is not None
    assert error.code == "too_many_images"


OUTSIDE = (
    "s3://{bucket}/",
    "s3://{bucket}/photos",
    "s3://{bucket}/Photos/",
    "s3://{bucket}//photos/",
    "s3://{bucket}/photos%2F",
    "s3://{bucket}-2/photos/",
    "s3://other-bucket/photos/",
    "s3://{own}/",
    "s3://{own}/photos/",
)


def test_prefixes_and_manifests_outside_the_grants_are_forbidden(service: Service) -> None:
    keys = service.services.store.keys
    keys.grant("bob", f"s3://{service.bucket}/")
    own = service.services.settings.bucket or "some-uploads"
    if service.services.settings.bucket:
        keys.grant(OWNER, f"s3://{own}/")
    for uri in OUTSIDE:
        named = uri.format(bucket=service.bucket, own=own)
        assert service.submit(s3_prefix=named)["code"] == "forbidden", uri
        assert service.submit(manifest=f"{named}m.csv")["code"] == "forbidden", uri


UNCLEAR: tuple[dict[str, Any], ...] = (
    {"s3_prefix": "s3://{bucket}/photos/../"},
    {"s3_prefix": "s3://{bucket}/photos/./x"},
    {"s3_prefix": "S3://{bucket}/photos/"},
    {"s3_prefix": "s3://{bucket}"},
    {"s3_prefix": "s3://{bucket}/photos/", "manifest": "s3://{bucket}/photos/m.csv"},
    {"manifest": "s3://{bucket}/photos/m.csv", "filter": {"glob": "*"}},
    {"s3_prefix": "s3://{bucket}/photos/", "filter": {"modified_since": "2024-01-01T00:00:00"}},
    {"s3_prefix": "s3://{bucket}/photos/", "filter": {"colour": "red"}},
    {},
)


def test_requests_that_do_not_say_one_thing_are_refused(service: Service) -> None:
    for request in UNCLEAR:
        text = json.dumps(request).replace("{bucket}", service.bucket)
        assert service.submit(**json.loads(text))["code"] == "invalid_request", request


# Manifests in S3


def test_a_manifest_in_s3_is_read_in_slices(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_source, "SLICE_ITEMS", 3)
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 1)
    for form in ("m.ndjson", "m.CSV"):
        read_manifest(service, form)


def read_manifest(service: Service, form: str) -> None:
    uris = [f"s3://{service.bucket}/photos/{n}.jpg" for n in range(8)]
    uris[5] = f"s3://{service.bucket}/secret/5.jpg"
    if form.endswith("ndjson"):
        lines = "\n".join(json.dumps({"s3_uri": uri, "custom_id": f"photo\n{uri[-5]}"}) for uri in uris)
    else:
        lines = "\r\n".join(["custom_id,s3_uri", *(f'"photo\n{uri[-5]}",{uri}' for uri in uris)])
    service.put(f"photos/{form}", body=f"\ufeff{lines}\n\n".encode())
    job = service.submit(manifest=f"s3://{service.bucket}/photos/{form}")
    assert job["source"] == "manifest"
    service.expand()
    items = service.items(job["id"])
    assert [item.source for item in items] == uris
    assert items[7].custom_id == "photo\n7"
    refused = {item.position: item.error.code for item in items if item.error}
    assert refused == {5: "access_denied"}
    assert service.job(job["id"]).status == "queued"


def test_a_manifest_that_turns_bad_or_changes_keeps_what_was_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_source, "SLICE_ITEMS", 2)
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 1)
    good = json.dumps({"s3_uri": f"s3://{service.bucket}/photos/0.jpg"}) + "\n"
    upload = json.dumps({"upload_id": f"upload_{'0' * 26}_0"})
    for body, words in (
        (good * 2 + "{", "line 3: the image: not valid JSON"),
        (good * 2 + upload, "line 3: upl"),
    ):
        service.put("photos/m.ndjson", body=body.encode())
        job = service.submit(manifest=f"s3://{service.bucket}/photos/m.ndjson")
        service.expand()
        seen = service.job(job["id"])
        assert seen.counts.total == 2
        assert seen.error is not None
        assert words in seen.error.message
    for longer_or_shorter in (good * 9, good):
        service.put("photos/m.ndjson", body=(good * 5).encode())
        job = service.submit(manifest=f"s3://{service.bucket}/photos/m.ndjson")
        service.services.expander.run_once()
        service.put("photos/m.ndjson", body=longer_or_shorter.encode())
        service.expand()
        changed = service.job(job["id"])
        assert (changed.counts.total, changed.error and "changed while" in changed.error.message) == (2, True)
    missing = service.submit(manifest=f"s3://{service.bucket}/photos/none.csv")
    service.expand()
    failed = service.job(missing["id"])
    assert (failed.status, failed.error and failed.error.code) == ("failed", "object_not_found")


# Archives


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def send(service: Service, archive: bytes, **form: Any) -> Any:
    parts = {"archive": (io.BytesIO(archive), "photos.zip"), **form}
    return service.http.post("/v1/jobs", data=parts, headers={"Idempotency-Key": "same"}).json


def test_an_archive_is_unpacked_in_slices(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_source, "SLICE_ITEMS", 2)
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 1)
    monkeypatch.setattr("jobs.objects.segments.SEGMENT_BYTES", 700)
    files = {f"album/{n}.jpg": jpeg_bytes(n) for n in range(5)}
    data = packed({**files, "album/read.me": b"hello", "large.jpg": bytes(20_001)})
    job = send(service, data, job=json.dumps({"metadata": {"album": "summer"}}))
    assert (job["source"], job["status"], job["metadata"]) == ("archive", "preparing", {"album": "summer"})
    assert send(service, data, job=json.dumps({"metadata": {"album": "summer"}}))["id"] == job["id"]
    assert send(service, data)["code"] == "idempotency_conflict"
    service.expand()
    items = service.items(job["id"])
    assert [(item.name, item.custom_id) for item in items[:2]] == [
        ("0.jpg", "album/0.jpg"),
        ("1.jpg", "album/1.jpg"),
    ]
    assert [item.error and item.error.code for item in items] == [None] * 5 + ["image_too_large"]
    for number in range(5):
        with service.http.get(f"/v1/jobs/{job['id']}/items/{number}/image") as answer:
            assert answer.status_code == 302 or answer.data == jpeg_bytes(number)
    # The archive itself is gone; its images stay until the job goes.
    assert service.services.objects.delete_prefix(job_prefix(job["id"])) == 5


@pytest.mark.parametrize("service", ["sqlite-rclone"], indirect=True)
def test_a_compressed_archive_is_unpacked_from_its_beginning_in_every_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_source, "SLICE_ITEMS", 1)
    monkeypatch.setattr(archive_source, "SLICE_S", 0)
    monkeypatch.setattr("jobs.archives.SILENT_S", 0)
    monkeypatch.setattr("jobs.archives.STEP_BYTES", 512)
    monkeypatch.setattr("jobs.expansion.TURN_SLICES", 2)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(8):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(jpeg_bytes(number))
            archive.addfile(info, io.BytesIO(jpeg_bytes(number)))
    job = send(service, buffer.getvalue())
    service.expand()
    assert [item.name for item in service.items(job["id"])] == [f"{number}.jpg" for number in range(8)]
    assert (service.job(job["id"]).status, service.job(job["id"]).error) == ("queued", None)


def test_a_damaged_archive_keeps_what_could_be_read(service: Service) -> None:
    files = {f"{n}.jpg": jpeg_bytes(n) for n in range(3)}
    whole = packed(files)
    submitted = send(service, whole[:-30])
    service.expand()
    job = service.job(submitted["id"])
    assert (job.status, job.error and job.error.code) == ("failed", "invalid_request")


NOT_ALONE = (
    ({"archive": b"Rar!"}, "neither a zip nor a tar"),
    ({"images": b"x", "archive": packed({"a.jpg": b"x"})}, "comes alone"),
    ({"archive": packed({"a.jpg": b"x"}), "images": b"x"}, "comes alone"),
)


def test_what_is_no_archive_alone_is_refused(service: Service) -> None:
    for parts, words in NOT_ALONE:
        form = {name: (io.BytesIO(data), f"{name}.bin") for name, data in parts.items()}
        answer = service.http.post("/v1/jobs", data=form).json
        assert answer["code"] == "invalid_request"
        assert words in answer["detail"]
    assert service.http.get("/v1/jobs").json["data"] == []
