"""What `captionfleet submit` sends: images, S3 URIs or a manifest."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cli.console import CommandFailed, progress, usage_error
from cli.files import find_images
from cli.remote import Remote
from cli.upload import MultipartUpload

BLOCK = 256 * 1024
MANIFESTS = {".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson", ".csv": "text/csv"}
Send = Callable[[Remote], dict[str, Any]]


def plan(sources: Sequence[str], job: dict[str, Any]) -> Send:
    """Look at everything that is to be sent; the value sends it and returns the job.

    ``job`` is what the API takes beside the images: ``options`` and, where it is wanted, ``webhook_url``.
    Raises ``CommandFailed`` (status 2) for what cannot be sent, before the server is asked anything.
    """
    uris = [source for source in sources if source.startswith("s3://")]
    manifests = [source for source in sources if Path(source).suffix.lower() in MANIFESTS]
    if len(uris) == len(sources):
        return _references(uris, job)
    if manifests and len(sources) > 1:
        raise usage_error("a manifest is submitted alone, one job for each")
    if manifests:
        return _manifest(Path(sources[0]), job)
    if uris:
        raise usage_error("files here and s3:// URIs are submitted as separate jobs")
    return _upload(find_images([Path(source) for source in sources]), job)


def _upload(images: Sequence[Path], job: dict[str, Any]) -> Send:
    upload = MultipartUpload(job, images)

    def send(remote: Remote) -> dict[str, Any]:
        _meet(remote, job)
        with progress(f"sending {len(images)} images", upload.length, "bytes") as advance:

            def body() -> Iterator[bytes]:
                return upload.body(lambda sent: advance(sent, ""))

            return _post(remote, "/v1/jobs", body, upload.content_type, upload.length)

    return send


def _references(uris: Sequence[str], job: dict[str, Any]) -> Send:
    for uri in uris:
        if uri.endswith("/") or uri.count("/") < 3:
            raise usage_error(f"{uri} names no object; list a prefix's objects in a manifest")
    body = json.dumps({"images": [{"s3_uri": uri} for uri in uris], **job}).encode()
    return lambda remote: _post(remote, "/v1/jobs", lambda: [body], "application/json", len(body))


def _manifest(path: Path, job: dict[str, Any]) -> Send:
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise usage_error(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    query = job["options"] | {name: value for name, value in job.items() if name != "options"}
    address = f"/v1/jobs?{urlencode(query)}" if query else "/v1/jobs"

    def body() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    def send(remote: Remote) -> dict[str, Any]:
        _meet(remote, job)
        return _post(remote, address, body, MANIFESTS[path.suffix.lower()], size)

    return send


def _meet(remote: Remote, job: dict[str, Any]) -> None:
    """Learn that the server is there, takes the key and has the model before anything is sent."""
    models = [model["name"] for model in remote.get("/v1/models")["data"]]
    wanted = job["options"].get("model")
    if wanted is not None and wanted not in models:
        known = ", ".join(models)
        raise CommandFailed(f"there is no model {wanted!r}; there is: {known} (model_not_available)")


def _post(
    remote: Remote, address: str, body: Callable[[], Any], content_type: str, length: int
) -> dict[str, Any]:
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(length),
        "Idempotency-Key": secrets.token_urlsafe(24),
    }
    job: dict[str, Any] = remote.post(address, body, headers)
    return job
