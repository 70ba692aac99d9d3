"""What the server answers, as typed and unchangeable records; ``raw`` is the JSON as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

JobStatus = Literal["preparing", "queued", "running", "completed", "failed", "canceling", "canceled"]
ItemStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
FINAL: frozenset[str] = frozenset({"completed", "failed", "canceled"})


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of what the server answers."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ErrorBody(Record):
    """A stable code and a sentence."""

    code: str
    message: str


@dataclass(frozen=True)
class Counts(Record):
    """Items of a job by status; they add up to ``total``."""

    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int

    @property
    def final(self) -> int:
        """Items that are over, one way or another."""
        return self.total - self.queued - self.running


@dataclass(frozen=True)
class Job(Record):
    """One client submission and how far it is."""

    id: str
    status: JobStatus
    counts: Counts
    progress: float
    eta_seconds: float | None
    images_per_second: float | None
    model: str
    options: dict[str, Any]
    metadata: dict[str, Any]
    priority: str
    source: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    error: ErrorBody | None
    webhook_url: str | None
    output: dict[str, Any] | None

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self.status in FINAL


@dataclass(frozen=True)
class Alternative(Record):
    """One of several captions of an image."""

    text: str
    score: float


@dataclass(frozen=True)
class Item(Record):
    """One image of a job."""

    position: int
    custom_id: str
    name: str
    source: str
    status: ItemStatus
    caption: str | None
    edited_caption: str | None
    score: float | None
    alternatives: list[Alternative]
    model: str | None
    width: int | None
    height: int | None
    sha256: str | None
    attempts: int
    error: ErrorBody | None
    finished_at: datetime | None

    @property
    def text(self) -> str | None:
        """The caption to show: a person's, else the model's."""
        return self.edited_caption or self.caption


@dataclass(frozen=True)
class Model(Record):
    """A model that jobs may name, and the workers that serve it now."""

    name: str
    default: bool
    versions: list[str]
    devices: list[str]
    workers: int
    images_per_second: float | None
    takes_prompt: bool | None
