"""How rows become what a client sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Text, and_, cast, false, not_, or_, select

from jobs.records import (
    CaptionOptions,
    Counts,
    ErrorBody,
    Item,
    ItemStatus,
    Job,
    JobStatus,
    Links,
    OutputState,
    Priority,
)
from jobs.store.database import Database
from jobs.store.states import IS_FINAL, IS_LEASED
from jobs.tables import ChunkRow, ItemRow

_WAITING = str(ItemStatus.QUEUED)
_NO_ALTERNATIVES = (None, "[]", "null")
PRIORITIES = {priority.weight: priority for priority in Priority}


def item_columns(database: Database) -> tuple[Any, ...]:
    """Return what is read of items. JSON and times come as text: drivers take them apart at great length."""
    return (
        ItemRow.position,
        ItemRow.custom_id,
        ItemRow.name,
        ItemRow.source,
        ItemRow.status,
        ItemRow.caption,
        ItemRow.edited_caption,
        ItemRow.score,
        cast(ItemRow.alternatives, Text),
        ItemRow.model,
        ItemRow.width,
        ItemRow.height,
        ItemRow.sha256,
        ItemRow.attempts,
        ItemRow.error_code,
        ItemRow.error_message,
        database.rfc3339(ItemRow.finished_at),
    )


def leased_ranges(connection: Connection, job_id: str) -> list[tuple[int, int]]:
    """Return the position ranges that workers have in hand; at most a window of them."""
    rows = connection.execute(
        select(ChunkRow.first, ChunkRow.last).where(ChunkRow.job_id == job_id, IS_LEASED)
    )
    return [(row.first, row.last) for row in rows]


class ItemView:
    """Items of one job as a client sees them: a row says ``queued`` until its final state is written."""

    def __init__(self, job_status: str, leased: Sequence[tuple[int, int]]) -> None:
        self._canceled = job_status in (JobStatus.CANCELING, JobStatus.CANCELED)
        self._leased = leased

    def condition(self, status: ItemStatus) -> ColumnElement[bool]:
        """Return what selects the items that a client sees as ``status``."""
        waiting = ItemRow.status == ItemStatus.QUEUED
        # The index holds final items only.
        final = and_(IS_FINAL, ItemRow.status == status)
        in_hand = or_(false(), *(ItemRow.position.between(first, last) for first, last in self._leased))
        if self._canceled:
            none_waits = status in (ItemStatus.QUEUED, ItemStatus.RUNNING)
            seen = or_(waiting, final) if status is ItemStatus.CANCELED else final
            return false() if none_waits else seen
        if status is ItemStatus.RUNNING:
            return and_(waiting, in_hand)
        if status is ItemStatus.QUEUED:
            return and_(waiting, not_(in_hand))
        return final

    def fields(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return what a row of ``item_columns`` says of its item, in the order of ``Item``."""
        position, custom_id, name, source, status, caption, edited, score, alternatives, *rest = row
        model, width, height, sha256, attempts, code, message, finished_at = rest
        # Written out, it takes half the time that a loop over the names does: downloads are long.
        return {
            "position": position,
            "custom_id": custom_id,
            "name": name,
            "source": source,
            "status": self._waiting(position) if status == _WAITING else status,
            "caption": caption,
            "edited_caption": edited,
            "score": score,
            "alternatives": [] if alternatives in _NO_ALTERNATIVES else orjson.loads(alternatives),
            "model": model,
            "width": width,
            "height": height,
            "sha256": sha256,
            "attempts": attempts,
            "error": None if code is None else {"code": code, "message": message or ""},
            "finished_at": finished_at,
        }

    def item(self, row: Sequence[Any]) -> Item:
        """Return the item of a row of ``item_columns``."""
        return Item(**self.fields(row))

    def _waiting(self, position: int) -> ItemStatus:
        """Return what an item without a final state is seen as."""
        if self._canceled:
            return ItemStatus.CANCELED
        in_hand = any(first <= position <= last for first, last in self._leased)
        return ItemStatus.RUNNING if in_hand else ItemStatus.QUEUED


def to_job(row: Row[Any], in_hand: int, output: OutputState | None) -> Job:
    """Return the job of a row; ``in_hand`` is how many of its items workers have."""
    at_work = row.status in (JobStatus.PREPARING, JobStatus.RUNNING)
    counts = _counts(row, in_hand if at_work else 0)
    rate = _rate(row)
    remaining = counts.queued + counts.running
    final = counts.total - remaining
    base = f"/v1/jobs/{row.id}"
    return Job(
        id=row.id,
        status=JobStatus(row.status),
        counts=counts,
        progress=round(final / counts.total, 4) if counts.total else 0.0,
        eta_seconds=round(remaining / rate, 1) if rate and remaining else None,
        images_per_second=round(rate, 2) if rate else None,
        model=row.model,
        options=CaptionOptions(**row.options),
        metadata=row.metadata,
        priority=PRIORITIES[row.weight],
        source=row.source,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        error=ErrorBody(**row.error) if row.error else None,
        webhook_url=row.webhook_url,
        output=output,
        links=Links(
            self=base,
            items=f"{base}/items",
            results=f"{base}/results",
            events=f"{base}/events",
            cancel=f"{base}/cancel",
            retry=f"{base}/retry",
        ),
    )


def _counts(row: Row[Any], running: int) -> Counts:
    waiting = row.total - row.succeeded - row.failed
    canceled = row.status in (JobStatus.CANCELING, JobStatus.CANCELED)
    running = min(running, waiting)
    return Counts(
        total=row.total,
        queued=0 if canceled else waiting - running,
        running=0 if canceled else running,
        succeeded=row.succeeded,
        failed=row.failed,
        canceled=waiting if canceled else 0,
    )


def _rate(row: Row[Any]) -> float | None:
    """Return images per second of the present round, once there is something to divide."""
    if row.round_started_at is None:
        return None
    until = row.finished_at or datetime.now(UTC)
    seconds = (until - row.round_started_at).total_seconds()
    done = row.succeeded + row.failed - row.round_base
    return float(done / seconds) if done > 0 and seconds > 0 else None
