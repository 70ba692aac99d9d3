"""How rows become what a client sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, false, not_, or_, select

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
from jobs.store.states import IS_FINAL, IS_LEASED
from jobs.tables import ChunkRow, ItemRow

ITEM_COLUMNS = (
    ItemRow.position,
    ItemRow.custom_id,
    ItemRow.name,
    ItemRow.source,
    ItemRow.status,
    ItemRow.caption,
    ItemRow.edited_caption,
    ItemRow.score,
    ItemRow.alternatives,
    ItemRow.model,
    ItemRow.width,
    ItemRow.height,
    ItemRow.sha256,
    ItemRow.attempts,
    ItemRow.error_code,
    ItemRow.error_message,
    ItemRow.finished_at,
)
PRIORITIES = {priority.weight: priority for priority in Priority}


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
        """Return what a row of ``ITEM_COLUMNS`` says of its item, in the order of ``Item``."""
        (position, custom_id, name, source, status, *written, code, message, finished_at) = row
        caption, edited, score, alternatives, model, width, height, sha256, attempts = written
        return {
            "position": position,
            "custom_id": custom_id,
            "name": name,
            "source": source,
            "status": status if status != ItemStatus.QUEUED else self._waiting(position),
            "caption": caption,
            "edited_caption": edited,
            "score": score,
            "alternatives": alternatives or [],
            "model": model,
            "width": width,
            "height": height,
            "sha256": sha256,
            "attempts": attempts,
            "error": {"code": code, "message": message or ""} if code else None,
            "finished_at": finished_at,
        }

    def item(self, row: Sequence[Any]) -> Item:
        """Return the item of a row of ``ITEM_COLUMNS``."""
        return Item(**self.fields(row))

    def _waiting(self, position: int) -> ItemStatus:
        """Return what an item without a final state is seen as."""
        if self._canceled:
            return ItemStatus.CANCELED
        in_hand = any(first <= position <= last for first, last in self._leased)
        return ItemStatus.RUNNING if in_hand else ItemStatus.QUEUED


def to_job(row: Row[Any], running: int, output: OutputState | None) -> Job:
    """Return the job of a row; ``running`` is how many of its items are in hand."""
    counts = _counts(row, running)
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
