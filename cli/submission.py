"""What `captionfleet submit` sends: images, an archive, S3 URIs, URLs, a prefix or a manifest."""

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
from jobs.image_types import named_like_image

BLOCK = 256 * 1024
MANIFESTS = {".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson", ".csv": "text/csv"}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ELSEWHERE = ("s3://", "http://", "https://")
Send = Callable[[Remote], dict[str, Any]]


def plan(sources: Sequence[str], job: dict[str, Any]) -> Send:
    """Look at everything that is to be sent; the value sends it and returns the job.

    ``job`` is what the API takes beside the images: ``options`` and, where they are wanted, ``webhook_url``,
    ``output`` and ``filter``.
    Raises ``CommandFailed`` (status 2) for what cannot be sent, before the server is asked anything.
    """
    elsewhere = [source for source in sources if source.startswith(ELSEWHERE)]
    if len(elsewhere) == len(sources):
        return _requested(_named(elsewhere, filtered="filter" in job), job)
    if "filter" in job:
        raise usage_error("--glob, --suffix and --modified-since select objects under an s3://bucket/prefix/")
    if elsewhere:
        raise usage_error("files here and images elsewhere are submitted as separate jobs")
    manifests = [source for source in sources if Path(source).suffix.lower() in MANIFESTS]
    if manifests and len(sources) > 1:
        raise usage_error("a manifest is submitted alone, one job for each")
    if manifests:
        return _manifest(Path(sources[0]), job)
    archives = [Path(source) for source in sources if source.lower().endswith(ARCHIVES)]
    if archives and len(sources) > 1:
        raise usage_error("an archive is submitted alone, one job for each")
    if archives and not archives[0].is_dir():
        return _upload(archives, job, part="archive")
    return _upload(find_images([Path(source) for source in sources]), job)


def _upload(images: Sequence[Path], job: dict[str, Any], part: str = "images") -> Send:
    upload = MultipartUpload(job, images, part)
    subject = images[0].name if part == "archive" else f"{len(images)} images"

    def send(remote: Remote) -> dict[str, Any]:
        _meet(remote, job)
        with progress(f"sending {subject}", upload.length, "bytes") as advance:

            def body() -> Iterator[bytes]:
                return upload.body(lambda sent: advance(sent, ""))

            return _post(remote, "/v1/jobs", body, upload.content_type, upload.length)

    return send


def _named(addresses: Sequence[str], *, filtered: bool) -> dict[str, Any]:
    """Return how a request names these: one manifest, one prefix, or images."""
    alone = addresses[0] if len(addresses) == 1 and addresses[0].startswith("s3://") else ""
    if alone and Path(alone).suffix.lower() in MANIFESTS and not filtered:
        return {"manifest": alone}
    if alone and (filtered or not named_like_image(alone)):
        # A folder, as people think of it; without the slash its neighbours would come along.
        return {"s3_prefix": alone if alone.endswith("/") else f"{alone}/"}
    for address in addresses:
        if address.startswith("s3://") and (address.endswith("/") or address.count("/") < 3):
            raise usage_error(f"{address} names no object; a prefix is submitted alone, one job for each")
    return {
        "images": [{"s3_uri" if at.startswith("s3://") else "url": at} for at in addresses],
    }


def _requested(named: dict[str, Any], job: dict[str, Any]) -> Send:
    if "filter" in job and "s3_prefix" not in named:
        raise usage_error("--glob, --suffix and --modified-since select objects under an s3://bucket/prefix/")
    body = json.dumps({**named, **job}).encode()
    return lambda remote: _post(remote, "/v1/jobs", lambda: [body], "application/json", len(body))


def _manifest(path: Path, job: dict[str, Any]) -> Send:
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise usage_error(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    if "output" in job:
        raise usage_error("--to and --sidecar do not go with a manifest here; put the manifest into S3")
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
