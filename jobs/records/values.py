"""Lengths and forms of what clients name, and the states of jobs and items."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import (
    AfterValidator,
    StringConstraints,
)

NAME_LENGTH = 1024
URI_LENGTH = 2048
LARGEST_POSITION = 2**31 - 1
FAST_JOB_IMAGES = 32

# PostgreSQL's text takes every character but this.
WITHOUT_NUL = r"^[^\x00]*$"

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=WITHOUT_NUL)]


def _plain_key(uri: str) -> str:
    """Refuse keys that a server with folders behind it would take for a way out of a granted prefix."""
    if any(part in (".", "..") for part in uri.split("/")[3:]):
        raise ValueError("a key with the parts . or .. is not read")
    return uri


S3Uri = Annotated[
    str,
    StringConstraints(max_length=URI_LENGTH, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00]+$"),
    AfterValidator(_plain_key),
]
S3Prefix = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00]*$"),
    AfterValidator(_plain_key),
]
Url = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\x00-\x20]+$")]
UploadId = Annotated[str, StringConstraints(max_length=48, pattern=r"^upload_[0-9a-z]{26}_[0-9]{1,4}$")]

EditedCaption = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=WITHOUT_NUL),
]
SearchText = Annotated[str, StringConstraints(max_length=200, pattern=WITHOUT_NUL)]


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
