"""Direct uploads: bytes go to the object store by an address that takes exactly one file, and to one job."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from jobs.tables import DirectUploadRow
from tests.contract.api.support import Client, Deployment, caption, document, refused
from tests.contract.stores import LONG_AGO
from tests.pictures import jpeg_bytes

JSON = "application/json"


def announce(client: Client, *files: dict[str, Any]) -> Any:
    answer = client.post("/v1/uploads", json.dumps({"files": files}).encode(), JSON)
    assert answer.status_code == 201, answer.text
    return answer.json["data"]


def photo(number: int = 0, **changed: Any) -> dict[str, Any]:
    return {"name": f"{number}.jpg", "content_type": "image/jpeg", "size": len(jpeg_bytes(number))} | changed


def send(client: Client, url: str, body: bytes, **headers: str) -> int:
    """PUT as a browser would: to the address alone, without a key."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    parts = urlsplit(url)
    if parts.netloc == "localhost":
        return client.http.put(f"{parts.path}?{parts.query}", data=body, headers=sent).status_code
    return httpx.put(url, content=body, headers=sent).status_code


def submit(client: Client, *ids: str, **headers: str) -> TestResponse:
    body = json.dumps({"images": [{"upload_id": upload} for upload in ids]}).encode()
    return client.post("/v1/jobs", body, JSON, **headers)


def uploaded(client: Client, count: int = 1) -> list[str]:
    targets = announce(client, *map(photo, range(count)))
    for number, target in enumerate(targets):
        assert target["method"] == "PUT"
        assert send(client, target["url"], jpeg_bytes(number), **target["headers"]) == 200
    return [target["id"] for target in targets]


def test_the_document_names_what_either_call_may_refuse() -> None:
    paths = document()["paths"]
    announced = paths["/v1/uploads"]["post"]["responses"]
    sent = paths["/v1/uploads/{upload_id}"]["put"]["responses"]
    assert "upload_incomplete" in announced["400"]["description"]
    assert "storage_unavailable" in announced["503"]["description"]
    assert sent["503"]["description"] == "database_unavailable, storage_unavailable"


def test_what_was_sent_directly_becomes_a_job(client: Client, deployment: Deployment) -> None:
    ids = uploaded(client, 3)
    job = submit(client, *reversed(ids)).json
    assert (job["source"], job["counts"]["total"]) == ("references", 3)
    caption(deployment.services, job["id"])
    items = client.get(job["links"]["items"]).json["data"]
    assert [item["name"] for item in items] == ["2.jpg", "1.jpg", "0.jpg"]
    assert {item["source"] for item in items} == {"upload"}
    image = client.get(f"{job['links']['items']}/2/image")
    shown = httpx.get(image.headers["Location"]).content if image.status_code == 302 else image.data
    assert shown == jpeg_bytes(0)


def test_the_address_is_as_safe_as_the_way_here(client: Client, deployment: Deployment) -> None:
    """A proxy that ends HTTPS says so: neither the token nor the photo may go on in the clear."""
    body = json.dumps({"files": [photo()]}).encode()
    for proto, scheme in (("https", "https"), ("http", "http")):
        answer = client.post("/v1/uploads", body, JSON, X_Forwarded_Proto=proto, Host="captions.example:8443")
        [target] = answer.json["data"]
        if deployment.services.settings.bucket is None:
            assert target["url"].startswith(
                f"{scheme}://captions.example:8443/v1/uploads/{target['id']}?token="
            )


def test_the_address_takes_the_announced_size_and_type_alone(client: Client) -> None:
    [target] = announce(client, photo())
    data = jpeg_bytes(0)
    assert send(client, target["url"], data + b"more", Content_Type="image/jpeg") == 403
    assert send(client, target["url"], data[:-1], Content_Type="image/jpeg") == 403
    assert send(client, target["url"], data, Content_Type="text/html") == 403
    refused(submit(client, target["id"]), "upload_incomplete", "(0.jpg) has not been sent yet")
    assert send(client, target["url"], data, Content_Type="image/jpeg") == 200
    assert submit(client, target["id"]).status_code == 202


def test_a_changed_or_expired_address_takes_nothing(client: Client, deployment: Deployment) -> None:
    first, second = announce(client, photo(), photo())
    data = jpeg_bytes(0)
    # The second file's place with the first one's permission, and a signature with one character changed.
    swapped = first["url"].replace(f"{first['id'][:-2]}_0", f"{first['id'][:-2]}_1").replace("/0?", "/1?")
    last = "0" if first["url"][-1] != "0" else "1"
    for url in (swapped, first["url"][:-1] + last):
        assert url != first["url"]
        assert send(client, url, data, Content_Type="image/jpeg") == 403
    if deployment.services.settings.bucket is None:
        with deployment.services.store.database.write() as connection:
            connection.execute(update(DirectUploadRow).values(url_expires_at=LONG_AGO))
        assert send(client, first["url"], data, Content_Type="image/jpeg") == 403
    refused(submit(client, second["id"]), "upload_incomplete")


def test_an_upload_belongs_to_one_owner_and_one_job(client: Client, deployment: Deployment) -> None:
    first, second = uploaded(client, 2)
    stranger = deployment.client()
    refused(submit(stranger, first), "invalid_request", "there is no upload")
    refused(submit(client, first, first), "invalid_request", "named twice")
    assert client.get("/v1/jobs").json["data"] == []
    job = submit(client, first, Idempotency_Key="once").json
    refused(submit(client, second, first), "invalid_request", "belongs to a job already")
    assert submit(client, first, Idempotency_Key="once").json["id"] == job["id"]
    assert submit(client, second).status_code == 202


def test_uploads_expire(client: Client, deployment: Deployment) -> None:
    [upload] = uploaded(client)
    with deployment.services.store.database.write() as connection:
        connection.execute(update(DirectUploadRow).values(expires_at=LONG_AGO))
    refused(submit(client, upload), "invalid_request", "or it has expired")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"files": []}, "invalid_request", "at least 1"),
        ({"files": [photo()] * 1001}, "invalid_request", "at most 1000"),
        ({"files": [photo(size=20_001)]}, "upload_too_large", "files[0]: an image may have at most 20000"),
        ({"files": [photo(size=0)]}, "invalid_request", "files[0].size"),
        ({"files": [photo(content_type="text/html")]}, "invalid_request", "files[0].content_type"),
        ({"files": [photo(content_type="image/png\r\nX: y")]}, "invalid_request", "files[0].content_type"),
        ({"files": [photo(owner="bob")]}, "invalid_request", "unknown field files[0].owner"),
    ],
)
def test_a_bad_announcement_is_refused(client: Client, body: object, code: str, words: str) -> None:
    refused(client.post("/v1/uploads", json.dumps(body).encode(), JSON), code, words)


@pytest.mark.parametrize(
    "upload", ["upload_x_0", "upload_" + "0" * 26 + "_99999", "../../jobs", "upload_" + "0" * 26 + "_-1"]
)
def test_ids_that_no_upload_has_are_refused(client: Client, upload: str) -> None:
    refused(submit(client, upload), "invalid_request", "images[0].upload_id")
