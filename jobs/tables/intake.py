"""What comes in: uploads, direct uploads, submissions that may be repeated, bucket events and their rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


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

    __table_args__ = (Index("idempotency_keys_by_job", "job_id"),)


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
