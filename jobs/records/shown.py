"""What the API gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
)

from jobs.records.given import Body, CaptionOptions, OutputFormat, OutputStatus
from jobs.records.values import EditedCaption, ItemStatus, JobStatus, Priority


class Counts(BaseModel):
    """Items of a job by status; they add up to ``total``."""

    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int


class ErrorBody(BaseModel):
    """A stable code and a sentence."""

    code: str
    message: str


class Links(BaseModel):
    """Where to go from a job."""

    self: str
    items: str
    results: str
    events: str
    cancel: str
    retry: str


class OutputState(BaseModel):
    """What was asked to be written to S3, and how far that is; it begins when the job has ended."""

    uri: str | None = None
    s3_prefix: str | None = None
    format: OutputFormat | None = None
    sidecar: str | None = None
    status: OutputStatus
    written: int = Field(description="Sidecars that were written.")
    skipped: int = Field(description="Without a caption, not in S3, or the place was taken.")
    failed: int = Field(description="Sidecars that S3 or a missing grant refused.")
    error: ErrorBody | None = None


class Job(BaseModel):
    """One client submission and how far it is."""

    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    counts: Counts
    progress: float = Field(description="Share of items that are final, 0 to 1.")
    eta_seconds: float | None
    images_per_second: float | None
    model: str
    options: CaptionOptions
    metadata: dict[str, Any]
    priority: Priority
    source: str = Field(description="upload, archive, references, manifest, s3_prefix or bucket_event.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    error: ErrorBody | None
    webhook_url: str | None
    output: OutputState | None = Field(description="Results that go to S3, where the job asks for them.")
    links: Links


class Alternative(BaseModel):
    """One of several captions of an image."""

    text: str
    score: float


class Item(BaseModel):
    """One image of a job; a line of the results is an item."""

    position: int
    custom_id: str
    name: str
    source: str = Field(description="upload, or the URI the image comes from.")
    status: ItemStatus
    caption: str | None
    edited_caption: str | None = Field(description="A person's, which stands for the model's own.")
    score: float | None = Field(
        description="Mean log-probability of the caption's tokens, its end included; 0 is certain."
    )
    alternatives: list[Alternative]
    model: str | None = Field(description="Versioned name of the model that wrote the caption.")
    width: int | None
    height: int | None
    sha256: str | None
    attempts: int
    error: ErrorBody | None
    finished_at: datetime | None


class ItemEdit(Body):
    """A person's caption for an image, kept beside the model's own."""

    caption: EditedCaption | None = Field(description="Null takes the edit back.")


class UploadTarget(BaseModel):
    """Where and how to send one file; an image of a job then names its ``id`` as ``upload_id``."""

    id: str
    object: Literal["upload"] = "upload"
    name: str
    size: int
    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str] = Field(description="To be sent with the PUT; its body is the file, whole.")
    expires_at: datetime = Field(description="Until then the address takes the file.")


class UploadTargets(BaseModel):
    """One target for each file, in the order of the request."""

    data: list[UploadTarget]


class DeletedJob(BaseModel):
    """A job that is gone; its images and rows follow soon."""

    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    data: list[Job]
    next_cursor: str | None


class ItemPage(BaseModel):
    """A page of items."""

    data: list[Item]
    next_cursor: str | None


class ModelInfo(BaseModel):
    """A model that requests may name, and the workers that serve it now."""

    name: str
    default: bool
    versions: list[str]
    devices: list[str]
    workers: int
    images_per_second: float | None
    takes_prompt: bool | None = Field(description="Null while no worker serves the model.")


class ModelList(BaseModel):
    """All models that requests may name."""

    data: list[ModelInfo]


class Health(BaseModel):
    """Whether the process, or a dependency, answers."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(default_factory=dict)


class Problem(BaseModel):
    """RFC 9457 problem details with a stable ``code``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
