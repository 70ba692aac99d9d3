"""Driving the API: multipart bodies, a client that holds answers to the document, a stand-in worker."""

from __future__ import annotations

import functools
import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from api.app import ROUTES, create_app
from api.openapi import openapi_document
from api.problems import PROBLEM_TYPE
from jobs.errors import REQUEST_STATUS, ItemCode, ItemError
from jobs.ids import new_id
from jobs.objects import job_prefix
from jobs.services import Services
from jobs.store.chunks import ChunkResult, ItemResult
from tests.pictures import jpeg_bytes

BOUNDARY = "tests-boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, content: bytes | str, filename: str | None = None) -> bytes:
    """One part of a multipart body."""
    shown = "" if filename is None else f'; filename="{filename}"'
    return raw_part(f'Content-Disposition: form-data; name="{name}"{shown}'.encode(), content)


def raw_part(headers: bytes, content: bytes | str) -> bytes:
    """One part with headers as they are."""
    body = content.encode() if isinstance(content, str) else content
    return b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), headers, body)


def multipart(*parts: bytes) -> bytes:
    """A whole multipart body."""
    return b"".join(parts) + b"--%s--\r\n" % BOUNDARY.encode()


def photos(count: int, first: int = 0) -> list[bytes]:
    """That many ``images`` parts, small photos named 0.jpg, 1.jpg, …"""
    return [part("images", jpeg_bytes(n), f"{n}.jpg") for n in range(first, first + count)]


@functools.cache
def document() -> Any:
    """The OpenAPI document."""
    return openapi_document(ROUTES)


class Client:
    """Calls the API as one owner; every answer is checked against the OpenAPI document."""

    def __init__(self, app: Flask, key: str | None) -> None:
        self.http = app.test_client()
        self.key = key
        self.document = document()

    def call(
        self, method: str, path: str, body: bytes = b"", content_type: str | None = None, **headers: str
    ) -> TestResponse:
        """Send one request; header names are written with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        answer = self.http.open(
            path,
            method=method,
            input_stream=io.BytesIO(body),
            content_length=len(body),
            content_type=content_type,
            headers=sent,
            buffered=True,
        )
        check_answer(self.document, method, path.partition("?")[0], answer)
        return answer

    def get(self, path: str, **headers: str) -> TestResponse:
        """GET a path."""
        return self.call("GET", path, **headers)

    def post(
        self, path: str, body: bytes = b"", content_type: str | None = None, **headers: str
    ) -> TestResponse:
        """POST a body."""
        return self.call("POST", path, body, content_type, **headers)

    def upload(self, *parts: bytes, **headers: str) -> TestResponse:
        """POST a multipart job."""
        return self.post("/v1/jobs", multipart(*parts), MULTIPART, **headers)

    def job(self, *parts: bytes) -> Any:
        """Make a job that must be accepted."""
        answer = self.upload(*parts)
        assert answer.status_code == 202, answer.text
        return answer.json


def refused(answer: TestResponse, code: str, words: str = "") -> Any:
    """Assert a refusal with a code and words in its sentence."""
    assert (answer.json or {}).get("code") == code, answer.text
    assert words in answer.json["detail"], answer.json["detail"]
    return answer.json


def check_answer(document: Any, method: str, path: str, answer: TestResponse) -> None:
    """Hold an answer to the document."""
    assert answer.headers["X-Request-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    if answer.status_code >= 400 and answer.mimetype != "application/json":
        assert answer.mimetype == PROBLEM_TYPE, answer.text
        check_problem(answer)
    operation = find_operation(document, method, path)
    if operation is None:
        assert answer.status_code in (404, 405)
        return
    responses = operation["responses"]
    described = responses.get(str(answer.status_code), responses["default"])
    if answer.status_code in (204, 302, 304) or method == "HEAD":
        assert not answer.data
        return
    schema = described["content"][answer.mimetype]["schema"]
    if answer.mimetype.endswith("json") or answer.mimetype == "application/x-ndjson":
        lines = answer.text.splitlines() if answer.mimetype.endswith("ndjson") else [answer.text]
        for line in lines[:100]:
            validate(document, schema, json.loads(line))


def validate(document: Any, schema: Any, value: Any) -> None:
    """Hold a value to one of the document's schemas."""
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def check_problem(answer: TestResponse) -> None:
    """Hold a refusal to RFC 9457 and to the table of codes."""
    body = answer.json
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["detail"]
    assert body["title"]
    if answer.status_code != 503:
        assert REQUEST_STATUS[body["code"]] == answer.status_code


def find_operation(document: Any, method: str, path: str) -> Any:
    """The documented operation of a request, if there is one."""
    for template, methods in document["paths"].items():
        pattern = re.sub(r"{\w+}", "[^/]+", template)
        if re.fullmatch(pattern, path):
            return methods.get("get" if method == "HEAD" else method.lower())
    return None


@dataclass
class Deployment:
    """Real services with keys required, and new owners to call them as."""

    services: Services
    app: Flask = field(init=False)
    owner: str = ""

    def __post_init__(self) -> None:
        """Make the application."""
        self.app = create_app(self.services)

    def client(self, owner: str | None = None, **options: Any) -> Client:
        """A client with a new key, of a new owner unless one is named."""
        self.owner = owner or new_id("owner")
        _, key = self.services.store.keys.create(self.owner, **options)
        return Client(self.app, key)

    def objects(self, job_id: str) -> int:
        """Count (and remove) a job's objects."""
        return self.services.objects.delete_prefix(job_prefix(job_id))

    @functools.cached_property
    def _s3(self) -> Any:
        return boto3.Session().client("s3")

    def jobs_with_objects(self) -> set[str]:
        """The ids under which the object store holds something."""
        settings = self.services.settings
        if settings.bucket is None:
            folder = settings.data_dir / "objects" / "jobs"
            return {path.parents[1].name for path in folder.glob("*/*/*")}
        listing = self._s3.list_objects_v2(Bucket=settings.bucket, Prefix="jobs/")
        return {entry["Key"].split("/")[1] for entry in listing.get("Contents", ())}


def caption(services: Services, job_id: str, failing: Sequence[int] = ()) -> None:
    """Do a worker's part for one job: caption every item, or fail the given positions."""
    for number in range(8):
        held = services.store.chunks.claim(job_id, number, "test-worker", 30, 2)
        if held is not None:
            items = [_result(item.position, failed=item.position in failing) for item in held.items]
            services.store.chunks.record([ChunkResult(held, items)])


def _result(position: int, *, failed: bool) -> ItemResult:
    if failed:
        return ItemResult(position, error=ItemError(ItemCode.IMAGE_CORRUPT, "it is torn"))
    captions = ((f"photo {position}", -0.25), ("something else", -1.5))
    return ItemResult(position, captions, None, "test-1", 64, 48)


@contextmanager
def working(services: Services, owner: str) -> Iterator[None]:
    """Caption an owner's jobs as they come, from another thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            jobs, _ = services.store.jobs.page(owner, None, 10, None)
            for job in jobs:
                if not job.status.final:
                    caption(services, job.id)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
