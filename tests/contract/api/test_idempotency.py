"""A request that is repeated under its key is done once."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import update

from jobs.ids import new_id
from jobs.tables import IdempotencyRow
from tests.contract.api.support import (
    MULTIPART,
    Client,
    Deployment,
    caption,
    multipart,
    part,
    photos,
    refused,
)
from tests.pictures import jpeg_bytes


def test_the_same_request_makes_one_job_and_stores_once(client: Client, deployment: Deployment) -> None:
    parts = (part("job", '{"metadata": {"a": 1, "b": 2}}'), *photos(3))
    first = client.upload(*parts, Idempotency_Key="k")
    # Other bytes, the same request: members in another order, another boundary would do as well.
    again = client.upload(part("job", '{"metadata": {"b": 2, "a": 1}}'), *photos(3), Idempotency_Key="k")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json["id"] == first.json["id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert len(client.get("/v1/jobs").json["data"]) == 1
    assert deployment.objects(first.json["id"]) == 3


@pytest.mark.parametrize(
    "parts",
    [
        photos(2),
        photos(4),
        [*photos(2), *photos(1, 7)],
        [*photos(2), part("images", jpeg_bytes(2), "other.jpg")],
        [part("job", '{"options": {"num_beams": 2}}'), *photos(3)],
        list(reversed(photos(3))),
    ],
)
def test_another_request_under_the_same_key_is_refused(client: Client, parts: list[bytes]) -> None:
    job = client.upload(*photos(3), Idempotency_Key="k").json
    refused(client.upload(*parts, Idempotency_Key="k"), "idempotency_conflict")
    assert [found["id"] for found in client.get("/v1/jobs").json["data"]] == [job["id"]]


def test_a_key_belongs_to_its_owner(deployment: Deployment) -> None:
    ids = {deployment.client().upload(*photos(1), Idempotency_Key="k").json["id"] for _ in range(2)}
    assert len(ids) == 2


def test_references_and_manifests_are_repeated_too(client: Client, deployment: Deployment) -> None:
    grant = deployment.services.store.keys.grant(deployment.owner, "s3://photos/")
    body = b'{"s3_uri": "s3://photos/a.jpg"}\n{"s3_uri": "s3://photos/b.jpg"}\n'
    kind = "application/x-ndjson"
    first = client.post("/v1/jobs", body, kind, Idempotency_Key="k").json["id"]
    deployment.services.store.keys.ungrant(grant)
    assert client.post("/v1/jobs", body, kind, Idempotency_Key="k").json["id"] == first
    refused(client.post("/v1/jobs?num_beams=2", body, kind, Idempotency_Key="k"), "idempotency_conflict")
    as_json = b'{"images": [{"s3_uri": "s3://photos/a.jpg"}, {"s3_uri": "s3://photos/c.jpg"}]}'
    refused(client.post("/v1/jobs", as_json, "application/json", Idempotency_Key="k"), "idempotency_conflict")


def test_a_repeated_caption_is_the_same_caption(client: Client, deployment: Deployment) -> None:
    body = multipart(part("image", b"\xff\xd8\xff" + bytes(30_000), "a.jpg"))
    first = client.post("/v1/captions", body, MULTIPART, Idempotency_Key="k")
    again = client.post("/v1/captions", body, MULTIPART, Idempotency_Key="k")
    assert (again.status_code, again.json) == (200, first.json)
    assert len(client.get("/v1/jobs").json["data"]) == 1


def test_a_request_still_being_received_is_in_progress(client: Client, deployment: Deployment) -> None:
    submit = deployment.services.store.submit
    submit.reserve(deployment.owner, "k", new_id("job"))
    answer = client.upload(*photos(1), Idempotency_Key="k")
    refused(answer, "idempotency_in_progress")
    assert int(answer.headers["Retry-After"]) > 0
    with deployment.services.store.database.write() as connection:
        long_ago = deployment.services.store.database.now(-60)
        connection.execute(
            update(IdempotencyRow)
            .where(IdempotencyRow.owner == deployment.owner)
            .values(heartbeat_at=long_ago)
        )
    assert client.upload(*photos(1), Idempotency_Key="k").status_code == 202


def test_of_many_at_once_one_makes_the_job(client: Client) -> None:
    answers = []

    def send() -> None:
        answers.append(Client(client.http.application, client.key).upload(*photos(2), Idempotency_Key="k"))

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = {answer.json.get("code") for answer in answers if answer.status_code != 202}
    assert codes <= {"idempotency_in_progress"}
    assert len({answer.json["id"] for answer in answers if answer.status_code == 202}) == 1
    assert len(client.get("/v1/jobs").json["data"]) == 1


def test_a_refused_request_does_not_use_up_its_key(client: Client) -> None:
    refused(client.upload(part("job", "{"), *photos(1), Idempotency_Key="k"), "invalid_request")
    assert client.upload(*photos(1), Idempotency_Key="k").status_code == 202


def test_the_key_of_a_deleted_job_is_not_used_again(client: Client, deployment: Deployment) -> None:
    job = client.upload(*photos(1), Idempotency_Key="k").json
    caption(deployment.services, job["id"])
    client.call("DELETE", job["links"]["self"])
    refused(client.upload(*photos(1), Idempotency_Key="k"), "idempotency_conflict", "deleted")
    store = deployment.services.store
    while store.retention.delete_rows(job["id"]):
        pass
    refused(client.upload(*photos(1), Idempotency_Key="k"), "idempotency_conflict", "deleted")
    with store.database.write() as connection:
        mine = IdempotencyRow.owner == deployment.owner
        connection.execute(update(IdempotencyRow).where(mine).values(created_at=store.database.now(-86_401)))
    store.retention.forget_old()
    assert client.upload(*photos(1), Idempotency_Key="k").status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "käse"])
def test_a_key_is_visible_ascii(client: Client, key: str) -> None:
    answer = client.upload(*photos(1), Idempotency_Key=key.encode().decode("latin-1"))
    refused(answer, "invalid_request", "Idempotency-Key")
