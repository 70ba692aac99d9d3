"""The tables. The database is the truth; everything else (messages, caches, memory) is a hint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    String,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on both databases; SQLite keeps it without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn any aware time into UTC."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


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
            "chunks_leased_by_job",
            "job_id",
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
    # Slices written: who writes the next one must know it, so that no slice is written twice.
    slices: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
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


class UploadRow(Base):
    """Objects being stored for a job that does not exist yet; the sweep removes what a dead request left."""

    __tablename__ = "uploads"

    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    heartbeat_at: Mapped[datetime]


class DirectUploadRow(Base):
    """A file that a client sends to the object store itself; a job takes it, or the sweep removes it."""

    __tablename__ = "direct_uploads"

    batch: Mapped[str] = mapped_column(String(40), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    content_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    # Of the token in an address of this service; S3 checks its addresses itself.
    token_hash: Mapped[str | None] = mapped_column(String(64))
    # Kept after the job's end, until the address has expired: what is sent there late must be found.
    job_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime]
    url_expires_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index(
            "direct_uploads_by_job",
            "job_id",
            postgresql_where=text("job_id is not null"),
            sqlite_where=text("job_id is not null"),
        ),
        Index("direct_uploads_expiring", "expires_at"),
    )


class IdempotencyRow(Base):
    """A client's Idempotency-Key and the job it stands for; without a fingerprint the request still runs."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40))
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    heartbeat_at: Mapped[datetime]
    created_at: Mapped[datetime]


class ApiKeyRow(Base):
    """An API key; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    label: Mapped[str]
    hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("hash", name="api_keys_hash"),)


class GrantRow(Base):
    """A bucket and key prefix that an owner's jobs may read, and write results to where it says so."""

    __tablename__ = "grants"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    bucket: Mapped[str] = mapped_column(String(63), primary_key=True)
    prefix: Mapped[str] = mapped_column(String(1024), primary_key=True)
    writable: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime]


class WebhookSecretRow(Base):
    """A secret that signs an owner's webhooks; a replaced one signs along until it expires."""

    __tablename__ = "webhook_secrets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), index=True)
    secret: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class DeliveryRow(Base):
    """The outbox: an event for a job's webhook, written in the transaction that ends the job."""

    __tablename__ = "deliveries"

    # Also the webhook-id by which receivers know a repeated delivery.
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(40), index=True)
    type: Mapped[str] = mapped_column(String(32))
    url: Mapped[str] = mapped_column(String(2048))
    body: Mapped[str]
    # pending -> delivered or failed.
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    # When a pending one is due; while it is being sent, when its sender counts as lost.
    next_at: Mapped[datetime | None]
    # What came of each try, oldest first.
    log: Mapped[list[Any]]
    created_at: Mapped[datetime]

    __table_args__ = (
        Index("deliveries_by_owner", "owner", "id"),
        Index(
            "deliveries_due",
            "next_at",
            postgresql_where=text("status = 'pending'"),
            sqlite_where=text("status = 'pending'"),
        ),
    )


class RuleRow(Base):
    """What becomes of new objects under a prefix, and whose jobs they make."""

    __tablename__ = "rules"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    bucket: Mapped[str] = mapped_column(String(63))
    prefix: Mapped[str] = mapped_column(String(1024))
    # A ``JobSpec``: options, webhook, output.
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("bucket", "prefix", name="rules_prefix"),)


class BucketEventRow(Base):
    """An event notification that a job was made of; who repeats it finds it here."""

    __tablename__ = "bucket_events"

    # Of bucket, key, version or etag, and sequencer.
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]

    __table_args__ = (Index("bucket_events_by_age", "created_at"),)


class WorkerRow(Base):
    """A worker process and what it was measured to do."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(128))
    version: Mapped[str]
    digest: Mapped[str] = mapped_column(String(64))
    device: Mapped[str]
    images_per_second: Mapped[float | None]
    takes_prompt: Mapped[bool] = mapped_column(server_default=text("true"))
    started_at: Mapped[datetime]
    last_seen: Mapped[datetime]


class LeaseRow(Base):
    """A named lease between processes; the sweep holds one so that one process at a time acts."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str | None]
    until: Mapped[datetime | None]


class SchemaFloorRow(Base):
    """One row: code that knows this revision works with the schema, however much newer that is."""

    __tablename__ = "schema_floor"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)
