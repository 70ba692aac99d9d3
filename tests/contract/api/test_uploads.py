"""Jobs and captions from images that come with the request."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import func, select

from api.app import create_app
from jobs.errors import StorageUnavailable
from jobs.objects import UploadBatch
from jobs.services import Services
from jobs.tables import IdempotencyRow, JobRow, UploadRow
from tests.contract.api.support import (
    BOUNDARY,
    MULTIPART,
    Client,
    Deployment,
    caption,
    multipart,
    part,
    photos,
    raw_part,
    refused,
    working,
)
from tests.pictures import jpeg_bytes, png_bytes

PHOTO = jpeg_bytes(1)
# The deployment's limit is 20,000 bytes an image.
LARGE = b"\xff\xd8\xff" + bytes(20_000)


def rows(services: Services, table: Any, **where: str) -> int:
    query = select(func.count()).select_from(table).filter_by(**where)
    with services.store.database.read() as connection:
        return connection.execute(query).scalar_one()


def nothing_left(deployment: Deployment) -> None:
    """Assert that the owner's refused request left no job, no upload, no key and no bytes."""
    for table in (JobRow, UploadRow, IdempotencyRow):
        assert rows(deployment.services, table, owner=deployment.owner) == 0
    with deployment.services.store.database.read() as connection:
        jobs = set(connection.execute(select(JobRow.id)).scalars())
    assert deployment.jobs_with_objects() <= jobs


def test_an_upload_becomes_a_job_with_captions(client: Client, services: Services) -> None:
    spec = {"metadata": {"album": "Zürich"}, "options": {"num_beams": 2}, "priority": "high"}
    answer = client.upload(part("job", json.dumps(spec)), *photos(3))
    job = answer.json
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert (job["status"], job["counts"]["total"], job["source"]) == ("queued", 3, "upload")
    assert (job["metadata"], job["priority"], job["options"]["num_beams"]) == (spec["metadata"], "high", 2)
    caption(services, job["id"], failing=[1])
    done = client.get(job["links"]["self"])
    assert "Retry-After" not in done.headers
    assert (done.json["status"], done.json["progress"]) == ("completed", 1.0)
    assert (done.json["counts"]["succeeded"], done.json["counts"]["failed"]) == (2, 1)
    items = client.get(job["links"]["items"]).json["data"]
    assert [item["name"] for item in items] == ["0.jpg", "1.jpg", "2.jpg"]
    assert items[1]["error"] == {"code": "image_corrupt", "message": "it is torn"}
    assert items[2]["caption"] == "photo 2"
    assert items[2]["alternatives"] == [{"text": "something else", "score": -1.5}]
    assert items[0]["sha256"] == hashlib.sha256(jpeg_bytes(0)).hexdigest()


def test_the_job_part_may_be_left_out(client: Client) -> None:
    job = client.job(*photos(1))
    assert (job["model"], job["metadata"], job["priority"]) == ("small", {}, "normal")


def test_file_names_are_kept_as_plain_text(client: Client) -> None:
    disposition = b'Content-Disposition: form-data; name="images"'
    job = client.job(
        part("images", PHOTO, "../../etc/passwd"),
        part("images", PHOTO, r"C:\photos\Käse.jpg"),
        raw_part(disposition + b"; filename=\"x\"; filename*=UTF-8''na%C3%AFve%20cat.jpg", PHOTO),
        raw_part(disposition + b'; filename="caf\xe9.jpg"', PHOTO),
        part("images", PHOTO, "a\tb\u202egpj.exe"),
        part("images", PHOTO, "n" * 1500 + ".jpg"),
        raw_part(disposition, PHOTO),
        part("images", PHOTO, ".."),
    )
    items = client.get(job["links"]["items"]).json["data"]
    assert [item["name"] for item in items] == [
        "passwd",
        "Käse.jpg",
        "naïve cat.jpg",
        "café.jpg",
        "a_b_gpj.exe",
        "n" * 1024,
        "image-6",
        "image-7",
    ]
    assert [item["custom_id"] for item in items] == [item["name"] for item in items]


def test_types_are_told_by_the_bytes_and_nothing_is_refused_for_its_type(
    client: Client, services: Services
) -> None:
    lying = raw_part(
        b'Content-Disposition: form-data; name="images"; filename="a.jpg"\r\nContent-Type: text/html',
        png_bytes(1),
    )
    job = client.job(lying, part("images", b"<html>", "b.jpg"), part("images", b"", "c.jpg"))
    kinds = [services.store.jobs.item(_owner(services, job["id"]), job["id"], n)[2] for n in range(3)]
    assert kinds == ["image/png", "application/octet-stream", "application/octet-stream"]


def _owner(services: Services, job_id: str) -> str:
    with services.store.database.read() as connection:
        return connection.execute(select(JobRow.owner).where(JobRow.id == job_id)).scalar_one()


def test_a_browsers_empty_file_field_is_no_image(client: Client) -> None:
    refused(client.upload(part("images", b"", "")), "invalid_request", "no images")
    assert client.job(part("images", b"", ""), *photos(1))["counts"]["total"] == 1


def test_an_image_with_too_many_bytes_costs_the_others_nothing(
    client: Client, deployment: Deployment
) -> None:
    job = client.job(*photos(1), part("images", LARGE, "large.jpg"), *photos(1, 2))
    assert (job["counts"]["failed"], job["counts"]["queued"]) == (1, 2)
    large = client.get(f"{job['links']['items']}/1").json
    assert (large["status"], large["error"]["code"]) == ("failed", "image_too_large")
    assert large["sha256"] == hashlib.sha256(LARGE).hexdigest()
    refused(client.get(f"{job['links']['items']}/1/image"), "not_found", "not stored")
    caption(deployment.services, job["id"])
    done = client.get(job["links"]["self"]).json
    assert (done["status"], done["counts"]["succeeded"], done["counts"]["failed"]) == ("completed", 2, 1)
    refused(client.post(job["links"]["retry"]), "job_state_conflict", "nothing to retry")
    assert deployment.objects(job["id"]) == 2


def test_a_job_of_refused_images_alone_is_over_at_once(client: Client) -> None:
    job = client.job(part("images", LARGE, "a.jpg"), part("images", LARGE, "b.jpg"))
    assert (job["status"], job["counts"]["failed"], job["progress"]) == ("completed", 2, 1.0)
    assert job["finished_at"] is not None
    assert job["expires_at"] is not None


def test_retry_leaves_refused_images_as_they_are(client: Client, services: Services) -> None:
    job = client.job(*photos(2), part("images", LARGE, "large.jpg"))
    caption(services, job["id"], failing=[0])
    again = client.post(job["links"]["retry"])
    assert again.status_code == 202
    assert again.json["counts"] == {
        "total": 3, "queued": 1, "running": 0, "succeeded": 1, "failed": 1, "canceled": 0
    }  # fmt: skip
    caption(services, job["id"])
    counts = client.get(job["links"]["self"]).json["counts"]
    assert (counts["succeeded"], counts["failed"]) == (2, 1)


def test_an_image_of_exactly_the_limit_is_taken(client: Client) -> None:
    job = client.job(part("images", LARGE[:20_000], "a.jpg"), part("images", LARGE[:20_001], "b.jpg"))
    items = client.get(job["links"]["items"]).json["data"]
    assert [item["status"] for item in items] == ["queued", "failed"]


MALFORMED: list[tuple[bytes, str, str, str]] = [
    (b"", MULTIPART, "upload_incomplete", "closing boundary"),
    (multipart(*photos(2))[:-5], MULTIPART, "upload_incomplete", "closing boundary"),
    (multipart(*photos(2))[:-500], MULTIPART, "upload_incomplete", "closing boundary"),
    (b"hello", MULTIPART, "upload_incomplete", "closing boundary"),
    (multipart(*photos(1)), "multipart/form-data", "invalid_request", "boundary"),
    (multipart(*photos(1)), "multipart/form-data; boundary=", "invalid_request", "boundary"),
    (multipart(raw_part(b"Content-Type: image/jpeg", PHOTO)), MULTIPART, "invalid_request", "malformed"),
    (multipart(raw_part(b"no colon", PHOTO)), MULTIPART, "invalid_request", "malformed"),
    (multipart(raw_part(b"X: " + b"y" * 20_000, PHOTO)), MULTIPART, "invalid_request", "malformed"),
    (multipart(part("images", PHOTO, "n" * 9000)), MULTIPART, "invalid_request", "malformed"),
    (multipart(), MULTIPART, "invalid_request", "no images"),
    (multipart(part("job", "{}")), MULTIPART, "invalid_request", "no images"),
    (multipart(part("image", PHOTO, "a.jpg")), MULTIPART, "invalid_request", "unknown part 'image'"),
    (multipart(*photos(1), part("job", "{}")), MULTIPART, "invalid_request", "before the images"),
    (multipart(part("job", "{}"), part("job", "{}"), *photos(1)), MULTIPART, "invalid_request", "once"),
    (multipart(part("job", "{"), *photos(1)), MULTIPART, "invalid_request", "the job part: not valid JSON"),
    (multipart(part("job", "[]"), *photos(1)), MULTIPART, "invalid_request", "object"),
    (multipart(part("job", '{"x": 1}'), *photos(1)), MULTIPART, "invalid_request", "unknown field x"),
    (
        multipart(part("job", '{"options": {"num_beams": 9}}'), *photos(1)),
        MULTIPART,
        "invalid_request",
        "options.num_beams: input should be less than or equal to 5",
    ),
    (
        multipart(part("job", '{"options": {"num_beams": 1, "num_captions": 2}}'), *photos(1)),
        MULTIPART,
        "invalid_request",
        "num_captions is larger",
    ),
    (multipart(part("job", '{"metadata": {"a": NaN}}'), *photos(1)), MULTIPART, "invalid_request", "NaN"),
    (
        multipart(part("job", '{"metadata": {"a": "\\ud800"}}'), *photos(1)),
        MULTIPART,
        "invalid_request",
        "not valid JSON",
    ),
    (
        multipart(part("job", '{"metadata": {"a": "%s"}}' % ("x" * 17_000)), *photos(1)),
        MULTIPART,
        "invalid_request",
        "metadata is larger",
    ),
    (multipart(part("job", " " * 300_000), *photos(1)), MULTIPART, "invalid_request", "larger than"),
    (
        multipart(part("job", '{"options": {"model": "../../etc"}}'), *photos(1)),
        MULTIPART,
        "model_not_available",
        "small, large",
    ),
    (multipart(*photos(61)), MULTIPART, "too_many_images", "at most 60"),
    (multipart(*photos(1)) + bytes(3_000_000), MULTIPART, "upload_too_large", "at most 3000000 bytes"),
    (b"[]", "", "unsupported_media_type", "multipart/form-data"),
    (b"<x/>", "text/xml", "unsupported_media_type", "application/x-ndjson"),
]


@pytest.mark.parametrize(("body", "content_type", "code", "words"), MALFORMED)
def test_a_bad_upload_is_refused_and_leaves_nothing(
    client: Client, deployment: Deployment, body: bytes, content_type: str, code: str, words: str
) -> None:
    refused(client.post("/v1/jobs", body, content_type, Idempotency_Key="k"), code, words)
    nothing_left(deployment)


def test_the_content_type_is_read_in_any_case(client: Client) -> None:
    kind = f"Multipart/Form-Data; Boundary={BOUNDARY}"
    assert client.post("/v1/jobs", multipart(*photos(1)), kind).status_code == 202


def test_a_compressed_body_is_refused(client: Client) -> None:
    answer = client.upload(*photos(1), Content_Encoding="gzip")
    refused(answer, "unsupported_media_type", "Content-Encoding")


def test_a_connection_that_ends_early_leaves_nothing(client: Client, deployment: Deployment) -> None:
    body = multipart(*photos(3))
    answer = client.http.post(
        "/v1/jobs",
        data=body[: len(body) // 2],
        content_type=MULTIPART,
        environ_overrides={"CONTENT_LENGTH": str(len(body))},
        headers={"Authorization": f"Bearer {client.key}", "Idempotency-Key": "k"},
    )
    refused(answer, "upload_incomplete", f"of {len(body)} bytes")
    nothing_left(deployment)


class FailingObjects:
    """An object store that breaks at the third object, or when asked to make all of them durable."""

    def __init__(self, services: Services, error: Exception, *, at_flush: bool) -> None:
        self._objects = services.objects
        self._error = error
        self._at_flush = at_flush
        self._opened = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    @contextmanager
    def batch(self) -> Iterator[Any]:
        with self._objects.batch() as batch:
            self._batch: UploadBatch = batch
            yield self

    def open(self, key: str, content_type: str) -> Any:
        self._opened += 1
        if self._opened == 3 and not self._at_flush:
            raise self._error
        return self._batch.open(key, content_type)

    def flush(self) -> None:
        self._batch.flush()
        if self._at_flush:
            raise self._error


@pytest.mark.parametrize("at_flush", [False, True])
def test_a_store_that_fails_half_way_leaves_nothing(deployment: Deployment, at_flush: bool) -> None:
    client = deployment.client()
    objects = FailingObjects(deployment.services, StorageUnavailable("the disk is full"), at_flush=at_flush)
    services = dataclasses.replace(deployment.services, objects=objects)
    broken = Client(create_app(services), client.key)
    answer = broken.upload(*photos(4), Idempotency_Key="k")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert refused(answer, "storage_unavailable")["detail"].startswith("storage does not answer")
    nothing_left(deployment)
    assert client.upload(*photos(4), Idempotency_Key="k").status_code == 202


def test_a_programming_error_is_logged_and_says_nothing_to_the_client(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    key = deployment.client().key
    objects = FailingObjects(deployment.services, ValueError("secret detail"), at_flush=False)
    broken = Client(create_app(dataclasses.replace(deployment.services, objects=objects)), key)
    body = refused(broken.upload(*photos(4)), "internal_error")
    assert "secret" not in json.dumps(body)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert body["request_id"] in record.getMessage()
    assert record.exc_info is not None
    nothing_left(deployment)


# One photo while the client waits


def test_one_photo_is_captioned_while_the_client_waits(client: Client, deployment: Deployment) -> None:
    body = multipart(part("image", PHOTO, "cat.jpg"), part("num_beams", "3"))
    with working(deployment.services, deployment.owner):
        answer = client.post("/v1/captions", body, MULTIPART)
    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["caption"], answer.json["name"]) == (
        "succeeded",
        "photo 0",
        "cat.jpg",
    )
    item = client.get(answer.headers["Content-Location"])
    assert item.json == answer.json
    job = client.get(item.request.path.removesuffix("/items/0")).json
    assert job["options"]["num_beams"] == 3


def test_options_may_come_as_json_before_or_after_the_image(client: Client, deployment: Deployment) -> None:
    image, options = part("image", PHOTO, "a.jpg"), part("options", '{"max_length": 9}')
    with working(deployment.services, deployment.owner):
        for parts in ((image, options), (options, image)):
            answer = client.post("/v1/captions", multipart(*parts), MULTIPART)
            assert answer.status_code == 200
    jobs = client.get("/v1/jobs").json["data"]
    assert [job["options"]["max_length"] for job in jobs] == [9, 9]


def test_a_caption_that_takes_long_is_answered_with_its_job(deployment: Deployment) -> None:
    key = deployment.client().key
    settings = deployment.services.settings.model_copy(update={"caption_wait_s": 0.05})
    hasty = Client(create_app(dataclasses.replace(deployment.services, settings=settings)), key)
    answer = hasty.post("/v1/captions", multipart(part("image", PHOTO, "a.jpg")), MULTIPART)
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["links"]["self"]
    assert answer.json["counts"]["total"] == 1


def test_a_large_photo_is_answered_with_its_failed_item(client: Client) -> None:
    answer = client.post("/v1/captions", multipart(part("image", LARGE, "a.jpg")), MULTIPART)
    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["error"]["code"]) == ("failed", "image_too_large")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (multipart(), "invalid_request", "no part `image`"),
        (multipart(part("image", b"", "")), "invalid_request", "no part `image`"),
        (multipart(part("image", PHOTO), part("image", PHOTO)), "invalid_request", "one `image`"),
        (multipart(part("images", PHOTO)), "invalid_request", "unknown part 'images'"),
        (multipart(part("image", PHOTO), part("num_beams", "many")), "invalid_request", "num_beams"),
        (multipart(part("image", PHOTO), part("options", '{"a": 1}')), "invalid_request", "unknown field a"),
        (multipart(part("image", PHOTO), part("model", "huge")), "model_not_available", "small, large"),
        (multipart(part("image", PHOTO))[:-4], "upload_incomplete", "boundary"),
    ],
)
def test_a_bad_caption_request_is_refused_and_leaves_nothing(
    client: Client, deployment: Deployment, body: bytes, code: str, words: str
) -> None:
    refused(client.post("/v1/captions", body, MULTIPART), code, words)
    nothing_left(deployment)


def test_a_caption_takes_multipart_alone(client: Client) -> None:
    refused(client.post("/v1/captions", PHOTO, "image/jpeg"), "unsupported_media_type", "`image`")
    assert BOUNDARY not in client.get("/docs").text
