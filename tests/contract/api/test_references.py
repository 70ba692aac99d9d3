"""Jobs from references to S3 objects: JSON requests and manifests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.manifests import JSON_BYTES
from jobs.callers import LOCAL_OWNER
from jobs.services import Services
from tests.contract.api.support import Client, Deployment, refused

NDJSON = "application/x-ndjson"
CSV = "text/csv; charset=utf-8"
URI = "s3://photos/2024/{}.jpg"


@pytest.fixture
def client(deployment: Deployment) -> Client:
    """A client whose jobs may read s3://photos/2024/."""
    client = deployment.client()
    deployment.services.store.keys.grant(deployment.owner, "s3://photos/2024/")
    return client


def submit(client: Client, **request: object) -> TestResponse:
    return client.post("/v1/jobs", json.dumps(request).encode(), "application/json")


def images(count: int) -> list[dict[str, str]]:
    return [{"s3_uri": URI.format(n), "custom_id": f"photo-{n}"} for n in range(count)]


def sources(client: Client, job: Any) -> list[tuple[str, str, str]]:
    items = client.get(job["links"]["items"]).json["data"]
    return [(item["source"], item["name"], item["custom_id"]) for item in items]


EXPECTED = [(URI.format(n), f"{n}.jpg", f"photo-{n}") for n in range(2)]


def test_a_json_request_names_its_images(client: Client) -> None:
    answer = submit(client, images=images(2), options={"model": "large"}, metadata={"a": [1, None]})
    assert answer.status_code == 202
    assert (answer.json["source"], answer.json["model"]) == ("references", "large")
    assert answer.json["metadata"] == {"a": [1, None]}
    assert sources(client, answer.json) == EXPECTED


def test_ndjson_names_one_image_a_line(client: Client) -> None:
    lines = "\n".join(json.dumps(image) for image in images(2))
    body = f"\ufeff{lines}\r\n\n".encode()
    answer = client.post("/v1/jobs?num_beams=3&priority=low", body, NDJSON)
    assert answer.status_code == 202
    assert answer.json["source"] == "manifest"
    assert (answer.json["options"]["num_beams"], answer.json["priority"]) == (3, "low")
    assert sources(client, answer.json) == EXPECTED


def test_csv_names_one_image_a_row(client: Client) -> None:
    body = f'custom_id,s3_uri\r\nphoto-0,{URI.format(0)}\r\n\r\n"photo-1","{URI.format(1)}"'.encode()
    assert sources(client, client.post("/v1/jobs", body, CSV).json) == EXPECTED
    without_ids = f"s3_uri\n{URI.format(0)}\n".encode()
    assert sources(client, client.post("/v1/jobs", without_ids, CSV).json) == [
        (URI.format(0), "0.jpg", "0.jpg")
    ]


def line(uri: str = URI.format(0), **more: str) -> bytes:
    return json.dumps({"s3_uri": uri} | more).encode() + b"\n"


@pytest.mark.parametrize(
    ("body", "content_type", "code", "words"),
    [
        (b"", "application/json", "invalid_request", "the request: not valid JSON"),
        (b"{}", "application/json", "invalid_request", "the request: exactly one of images, s3_prefix"),
        (b'{"images": []}', "application/json", "invalid_request", "images: list should have at least 1"),
        (b'{"images": [{}]}', "application/json", "invalid_request", "images[0]: exactly one of s3_uri"),
        (b'{"images": [{"s3_uri": "s3://b"}]}', "application/json", "invalid_request", "images[0].s3_uri"),
        (b'{"images": [{"url": "ftp://x"}]}', "application/json", "invalid_request", "images[0].url"),
        (line("s3://photos/2024/../2023/a.jpg"), NDJSON, "invalid_request", "the parts . or .."),
        (b" " * (JSON_BYTES + 1) , "application/json", "upload_too_large", "at most 3000000"),
        (json.dumps({"images": images(61)}).encode(), "application/json", "too_many_images", "at most 60"),
        (line("s3://photos/2023/a.jpg"), NDJSON, "forbidden", "line 1: s3://photos/2023/a.jpg is not under"),
        (line() + b"{", NDJSON, "invalid_request", "line 2: the image: not valid JSON"),
        (line() + b"\n" + b"[1]\n", NDJSON, "invalid_request", "line 3: the image: "),
        (line() + line(colour="red"), NDJSON, "invalid_request", "line 2: the image: unknown field colour"),
        (line() + b"\xff\n", NDJSON, "invalid_request", "line 2: not UTF-8"),
        (line() + b"x" * 20_000, NDJSON, "invalid_request", "longer than"),
        (line() * 61, NDJSON, "too_many_images", "at most 60"),
        (b"\n\n", NDJSON, "invalid_request", "names no images"),
        (b"", NDJSON, "invalid_request", "the manifest names no images"),
        (b"uri\ns3://a/b", CSV, "invalid_request", "line 1: unknown column 'uri'"),
        (b"custom_id\nx", CSV, "invalid_request", "line 1: the first row must name one of the columns"),
        (b"s3_uri,s3_uri\n", CSV, "invalid_request", "each column once"),
        (b"s3_uri\n", CSV, "invalid_request", "names no images"),
        (b"s3_uri\na,b\n", CSV, "invalid_request", "line 2: 2 fields where there are 1 columns"),
        (b"s3_uri\nhttp://x/y\n", CSV, "invalid_request", "line 2: the image: s3_uri"),
        (b's3_uri\n"s3://photos/2024/a', CSV, "invalid_request", "not valid CSV"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_line_and_leaves_nothing(
    client: Client, body: bytes, content_type: str, code: str, words: str
) -> None:
    refused(client.post("/v1/jobs", body, content_type), code, words)
    assert client.get("/v1/jobs").json["data"] == []


@pytest.mark.parametrize("uri", ["s3://photos/2024-05/a.jpg", "s3://photos-2/2024/a.jpg"])
def test_objects_outside_the_grants_are_forbidden(client: Client, uri: str) -> None:
    refused(submit(client, images=[{"s3_uri": uri}]), "forbidden", "not under a prefix granted to you")


def test_contradicting_and_unknown_query_options_are_refused(client: Client) -> None:
    refused(client.post("/v1/jobs?num_beams=9", line(), NDJSON), "invalid_request", "num_beams")
    refused(client.post("/v1/jobs?num_beams=1&num_captions=2", line(), NDJSON), "invalid_request", "larger")
    refused(client.post("/v1/jobs?model=huge", line(), NDJSON), "model_not_available")
    refused(
        client.post("/v1/jobs?beams=1", line(), NDJSON), "invalid_request", "unknown query parameter 'beams'"
    )
    body = json.dumps({"images": images(1)}).encode()
    refused(client.post("/v1/jobs?num_beams=1", body, "application/json"), "invalid_request", "manifests")


def test_the_image_of_a_reference_is_where_it_was(client: Client, deployment: Deployment) -> None:
    job = submit(client, images=images(1)).json
    answer = client.get(f"{job['links']['items']}/0/image")
    assert answer.status_code == 302
    assert "/2024/0.jpg?" in answer.headers["Location"]
    assert "response-content-type=image%2Fjpeg" in answer.headers["Location"]
    [grant] = deployment.services.store.keys.grants(deployment.owner)
    deployment.services.store.keys.ungrant(grant)
    refused(client.get(f"{job['links']['items']}/0/image"), "forbidden")


def test_without_credentials_an_s3_job_is_refused_at_once(
    embedded: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Deployment(embedded).client()
    embedded.store.keys.grant(LOCAL_OWNER, "s3://photos/2024/")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    answer = client.post("/v1/jobs", line(URI.format(1)), NDJSON)
    refused(answer, "forbidden", "there are no AWS credentials")
