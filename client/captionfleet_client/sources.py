"""Where a job's images come from: each kind knows how it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from captionfleet_client.errors import InvalidArgument
from captionfleet_client.multipart import multipart
from captionfleet_client.requests import Body, Progress, Request, as_json, file_body, json_body

JOBS = "/v1/jobs"
# What the server reads of a JSON request; a longer list goes as a manifest, which it reads line by line.
JSON_BYTES = 8 * 1024 * 1024
LINES = "application/x-ndjson"
LINES_AT_ONCE = 1000
# What a manifest has no place for.
UNLISTED = {"metadata", "output"}
# Of an upload's id: a little more than servers give.
ID_LENGTH = 40
AnyPath = str | Path


class Options(TypedDict, total=False):
    """How to caption; what is left out takes the model's own default."""

    model: str
    num_beams: int
    num_captions: int
    max_length: int
    min_length: int
    prompt: str
    length_penalty: float
    top_p: float
    temperature: float
    seed: int
    use_cache: bool


class Output(TypedDict, total=False):
    """Results in S3 once the job has ended: one object, or sidecars beside the images."""

    uri: str
    s3_prefix: str
    format: Literal["jsonl", "csv", "parquet"]
    sidecar: Literal["txt", "json"]


class JobSettings(TypedDict, total=False):
    """What a job takes beside its images.

    ``idempotency_key``: the same key and the same images are the same job, within a day; without one the
    client makes its own for its repeats. ``progress`` hears how many bytes of how many have been sent.
    """

    options: Options
    metadata: Mapping[str, Any]
    priority: Literal["low", "normal", "high"]
    webhook_url: str
    output: Output
    idempotency_key: str
    progress: Progress


class Reference(TypedDict, total=False):
    """One image: ``s3_uri``, ``url`` or ``upload_id``, and perhaps a ``custom_id`` of yours."""

    s3_uri: str
    url: str
    upload_id: str
    custom_id: str


class ObjectFilter(TypedDict, total=False):
    """Which objects under a prefix become images."""

    suffixes: Sequence[str]
    glob: str
    min_size: int
    max_size: int
    modified_since: str


@dataclass(frozen=True)
class Files:
    """Image files here, sent in one request."""

    paths: Sequence[AnyPath]

    def request(self, job: Mapping[str, Any]) -> Request:
        """Return the request; raise ``UnreadableFile``."""
        body = multipart("job", dict(job), "images", [Path(path) for path in self.paths])
        return Request("POST", JOBS, body=body)


@dataclass(frozen=True)
class Archive:
    """A zip or tar of images here."""

    path: AnyPath

    def request(self, job: Mapping[str, Any]) -> Request:
        """Return the request; raise ``UnreadableFile``."""
        return Request("POST", JOBS, body=multipart("job", dict(job), "archive", [Path(self.path)]))


@dataclass(frozen=True)
class Images:
    """Images elsewhere: addresses beginning with s3:// or http(s)://, or references."""

    images: Sequence[str | Reference]

    def request(self, job: Mapping[str, Any]) -> Request:
        """Return the request; raise ``InvalidArgument`` for too many to have metadata or output."""
        images = [_reference(image) for image in self.images]
        body = json_body({"images": images, **job})
        if body.length <= JSON_BYTES:
            return Request("POST", JOBS, body=body)
        _refuse_unlisted(job, f"a list of {len(images)} images")
        return _listed(_lines(images), job)


@dataclass(frozen=True)
class Prefix:
    """All images under an S3 prefix, or those that ``filter`` selects."""

    uri: str
    filter: ObjectFilter | None = None

    def request(self, job: Mapping[str, Any]) -> Request:
        """Return the request."""
        wanted = {"filter": self.filter} if self.filter else {}
        return Request("POST", JOBS, body=json_body({"s3_prefix": self.uri, **wanted, **job}))


@dataclass(frozen=True)
class Manifest:
    """A list of images, one a line: a file here, or an ``s3://`` object.

    It is read as CSV if its name ends in .csv, else as NDJSON.
    """

    place: AnyPath

    def request(self, job: Mapping[str, Any]) -> Request:
        """Return the request; raise ``UnreadableFile``, ``InvalidArgument`` for what a file cannot carry."""
        if str(self.place).startswith("s3://"):
            return Request("POST", JOBS, body=json_body({"manifest": str(self.place), **job}))
        path = Path(self.place)
        kind = "text/csv" if path.suffix.lower() == ".csv" else LINES
        _refuse_unlisted(job, "a manifest here")
        return _listed(file_body(path, kind), job)


@dataclass(frozen=True)
class Direct:
    """Image files here, sent ``at_once`` at a time, straight to the object store where there is one.

    ``state``: a file that remembers what has been sent. Submit again with the same state after an
    interruption and only the rest is sent; it is removed once the job is made.
    """

    paths: Sequence[AnyPath]
    state: AnyPath | None = None
    at_once: int = 8

    def check(self, job: Mapping[str, Any]) -> None:
        """Raise ``InvalidArgument`` for what could not become a job once everything has been sent."""
        if self.at_once < 1:
            raise InvalidArgument(f"at_once is {self.at_once}; at least one file is sent at a time")
        if UNLISTED & job.keys():
            Images([{"upload_id": "0" * ID_LENGTH}] * len(self.paths)).request(job)


Source = Files | Archive | Images | Prefix | Manifest | Direct


def _reference(image: str | Reference) -> Reference:
    if not isinstance(image, str):
        return image
    return {"s3_uri": image} if image.startswith("s3://") else {"url": image}


def _lines(images: Sequence[Reference]) -> Body:
    def blocks() -> Iterator[bytes]:
        for start in range(0, len(images), LINES_AT_ONCE):
            yield b"".join(as_json(image) + b"\n" for image in images[start : start + LINES_AT_ONCE])

    return Body(LINES, sum(map(len, blocks())), blocks)


def _refuse_unlisted(job: Mapping[str, Any], what: str) -> None:
    if refused := UNLISTED & job.keys():
        names = " and ".join(sorted(refused))
        raise InvalidArgument(f"{what} takes no {names}; put the list into S3 as a manifest, which does")


def _listed(body: Body, job: Mapping[str, Any]) -> Request:
    """Return the request of a manifest: what else the job takes goes into the address."""
    params = {**job.get("options", {}), **{name: job[name] for name in job if name != "options"}}
    return Request("POST", JOBS, params=params, body=body)
