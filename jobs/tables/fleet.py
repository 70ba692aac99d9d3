"""The processes: workers, turns, and the oldest code that the schema serves."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


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
