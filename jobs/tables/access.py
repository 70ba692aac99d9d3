"""Who may do what, and whom a job's end is told."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Index,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class ApiKeyRow(Base):
    """An API key; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    label: Mapped[str]
    hash: Mapped[str] = mapped_column(String(64))
    # Names, separated by spaces. Keys that were made before there were scopes do what there was to do.
    scopes: Mapped[str] = mapped_column(String(64), server_default="submit read")
    # What differs from the settings' limits, by name; null lifts a limit.
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    # To the minute or so: written at most once in that time, however often the key is used.
    last_used_at: Mapped[datetime | None]
    # The key that was made to take this one's place.
    successor: Mapped[str | None] = mapped_column(String(16))

    __table_args__ = (UniqueConstraint("hash", name="api_keys_hash"),)


class SessionRow(Base):
    """A browser that has shown a key; only the hash of its cookie is kept."""

    __tablename__ = "sessions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class UsageRow(Base):
    """What an owner has used up of today's quotas; its lock also puts the owner's submissions in a row."""

    __tablename__ = "usage"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    # By UTC. What was used on another day counts as nothing.
    day: Mapped[date]
    images: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)


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
