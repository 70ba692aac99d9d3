"""What the API takes and gives: types that validate requests, shape answers and make the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

NAME_LENGTH = 1024
FAST_JOB_IMAGES = 32

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=r"^[^\x00]*$")]
S3Uri = Annotated[
    str, StringConstraints(max_length=2048, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00]+$")
]


class JobStatus(StrEnum):
    """Where a job is in its life."""

    PREPARING = "preparing"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELING = "canceling"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED)


class ItemStatus(StrEnum):
    """Where an item is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Priority(StrEnum):
    """How a job shares its owner's capacity with the owner's other jobs."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def weight(self) -> int:
        """Chunks handed out relative to a low-priority job."""
        return {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}[self]


class Body(BaseModel):
    """Base of everything a client sends: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CaptionOptions(Body):
    """How to caption; what is left out takes the model's own default."""

    model: str | None = Field(None, max_length=128, description="One of GET /v1/models; default: the first.")
    num_beams: int | None = Field(None, ge=1, le=5, description="Beams of the search; 1 is greedy.")
    num_captions: int | None = Field(None, ge=1, le=5, description="Captions per image, at most num_beams.")
    max_length: int | None = Field(None, ge=1, le=50, description="Most words.")
    min_length: int | None = Field(None, ge=0, le=50, description="Fewest words.")
    prompt: str | None = Field(
        None, max_length=1024, description="Start of the caption, for models that take one."
    )


class JobSpec(Body):
    """The ``job`` part of a multipart request: everything but the images."""

    options: CaptionOptions = CaptionOptions()
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Yours; returned as given, at most 16 KiB."
    )
    priority: Priority = Priority.NORMAL


class ImageReference(Body):
    """One image that already lies in S3."""

    s3_uri: S3Uri
    custom_id: ShortText | None = None


class JobRequest(JobSpec):
    """A job whose images already lie in S3."""

    images: Annotated[list[ImageReference], Field(min_length=1)]


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
    cancel: str
    retry: str


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
    source: str = Field(description="upload, references or manifest.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    error: ErrorBody | None
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
    edited_caption: str | None
    score: float | None = Field(description="Mean log-probability of the caption's tokens.")
    alternatives: list[Alternative]
    model: str | None = Field(description="Versioned name of the model that wrote the caption.")
    width: int | None
    height: int | None
    sha256: str | None
    attempts: int
    error: ErrorBody | None
    finished_at: datetime | None


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
    """A page of items, by position."""

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
