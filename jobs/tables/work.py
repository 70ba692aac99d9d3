"""Jobs, their items and chunks, and what is known of captions made before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    ForeignKey,
    Index,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class JobRow(Base):
    """One client submission. Its counters move only in the recording transaction."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(128))
    options: Mapped[dict[str, Any]]
    job_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")
    source: Mapped[str] = mapped_column(String(16))
    # Of one owner's jobs, a weight-4 job has four times as many chunks handed out as a weight-1 job.
    weight: Mapped[int]
    # Small jobs travel on the model's fast queue.
    fast: Mapped[bool]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    webhook_url: Mapped[str | None] = mapped_column(String(2048))
    # Where in a trace it was made (W3C Trace Context); its chunks are parts of that trace.
    traceparent: Mapped[str | None] = mapped_column(String(55))
    round: Mapped[int] = mapped_column(default=1)
    version: Mapped[int] = mapped_column(default=1)
    total: Mapped[int] = mapped_column(default=0)
    succeeded: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    # Chunks 0 … released-1 may be claimed; closed of them are done; window = released - closed.
    chunk_count: Mapped[int] = mapped_column(default=0)
    released: Mapped[int] = mapped_column(default=0)
    closed: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    # Start of the present round, for the rate; succeeded + failed at that time.
    round_started_at: Mapped[datetime | None]
    round_base: Mapped[int] = mapped_column(default=0)
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        Index("jobs_by_owner", "owner", "id"),
        Index(
            "jobs_active",
            "owner",
            "model",
            postgresql_where=text("status in ('preparing', 'queued', 'running')"),
            sqlite_where=text("status in ('preparing', 'queued', 'running')"),
        ),
        Index(
            "jobs_canceling",
            "id",
            postgresql_where=text("status = 'canceling'"),
            sqlite_where=text("status = 'canceling'"),
        ),
        Index(
            "jobs_expiring",
            "expires_at",
            postgresql_where=text("expires_at is not null"),
            sqlite_where=text("expires_at is not null"),
        ),
        Index(
            "jobs_deleted",
            "deleted_at",
            postgresql_where=text("deleted_at is not null"),
            sqlite_where=text("deleted_at is not null"),
        ),
    )


class ItemRow(Base):
    """One image of a job; written at insert and once more with its final state."""

    __tablename__ = "items"

    # Not a foreign key: checking it once a row takes longer than the rest of a bulk insert. Items are written
    # under their job's row lock and removed before it.
    job_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    custom_id: Mapped[str]
    # "upload", or the URI the bytes come from.
    source: Mapped[str]
    object_key: Mapped[str | None]
    content_type: Mapped[str | None]
    sha256: Mapped[str | None] = mapped_column(String(64))
    caption: Mapped[str | None]
    edited_caption: Mapped[str | None]
    score: Mapped[float | None]
    alternatives: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    model: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    finished_at: Mapped[datetime | None]

    # Waiting items are found by their chunks, so a bulk insert need not feed this.
    __table_args__ = (
        Index(
            "items_final",
            "job_id",
            "status",
            "position",
            postgresql_where=text("status <> 'queued'"),
            sqlite_where=text("status <> 'queued'"),
        ),
    )


class ChunkRow(Base):
    """A range of positions of one job: the unit of claim and message, with the lease that recovers it."""

    __tablename__ = "chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    round: Mapped[int]
    first: Mapped[int]
    last: Mapped[int]
    # open -> leased -> done; a lost lease, a handed-back chunk and a transient failure go back to open.
    state: Mapped[str] = mapped_column(String(8))
    owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    # Counts claims; with the round it tells a stale worker's recording from the present one's.
    attempt: Mapped[int] = mapped_column(default=0)
    # Leases that expired: from the second on, its images run one at a time, alone in their process.
    suspicions: Mapped[int] = mapped_column(default=0)
    alone: Mapped[bool] = mapped_column(default=False)
    # Weighed, not counted: a death that may be chance speaks less against the image than a crash.
    deaths_alone: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    # When the sweep first saw it open, released and unclaimed; without that, when it was claimed.
    noticed_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "chunks_leased",
            "lease_until",
            postgresql_where=text("state = 'leased'"),
            sqlite_where=text("state = 'leased'"),
        ),
        Index(
            "chunks_open",
            "job_id",
            "number",
            postgresql_where=text("state = 'open'"),
            sqlite_where=text("state = 'open'"),
        ),
        Index(
            "chunks_postponed",
            "not_before",
            postgresql_where=text("state = 'open' and not_before is not null"),
            sqlite_where=text("state = 'open' and not_before is not null"),
        ),
        Index(
            "chunks_leased_of_job",
            "job_id",
            # Without it PostgreSQL may prefer this index where the key names one chunk.
            "number",
            postgresql_where=text("state = 'leased'"),
            sqlite_where=text("state = 'leased'"),
        ),
    )


class ExpansionRow(Base):
    """What is still to become items of a job that is being prepared, and how far that is."""

    __tablename__ = "expansions"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    # Which source turns parameters and cursor into items.
    kind: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]]
    cursor: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    # Position of the next item.
    position: Mapped[int]
    # The limits of who submitted the job, by name; images that are found later count against them.
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # Slices written: who writes the next one must know it, so that no slice is written twice.
    slices: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    # Processes that took it up and were not heard of again, since its last slice was written.
    deaths: Mapped[int] = mapped_column(default=0, server_default="0")
    not_before: Mapped[datetime]
    holder: Mapped[str | None]
    lease_until: Mapped[datetime | None]


class OutputRow(Base):
    """Results that are to be written to S3 when the job has ended, and how far that is."""

    __tablename__ = "outputs"

    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    wanted: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16))
    # Who writes must know this number; each claim and each retry of the job raises it.
    steps: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    after: Mapped[int] = mapped_column(default=-1)
    written: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    object_written: Mapped[bool] = mapped_column(default=False)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    not_before: Mapped[datetime]
    holder: Mapped[str | None]
    lease_until: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "outputs_waiting",
            "not_before",
            postgresql_where=text("status = 'waiting'"),
            sqlite_where=text("status = 'waiting'"),
        ),
    )


class CachedCaptionRow(Base):
    """Which item has the caption of an image's bytes under a checkpoint and its options."""

    __tablename__ = "cached_captions"

    # Digest of owner, image bytes, checkpoint and resolved options.
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(40))
    position: Mapped[int]

    __table_args__ = (Index("cached_captions_by_job", "job_id"),)
