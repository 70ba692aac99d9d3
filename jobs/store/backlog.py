"""How much work waits, by model: what autoscaling, metrics and operators ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from jobs.store.database import Database
from jobs.store.states import IS_ACTIVE, is_alive
from jobs.tables import JobRow, WorkerRow


@dataclass(frozen=True)
class Backlog:
    """A model's unfinished images, and who works on them."""

    model: str
    images: int
    oldest_s: float
    """Age in seconds of the oldest unfinished job, 0 without one."""
    workers: int
    images_per_second: float | None
    """Measured rate of one worker, the mean of those alive; ``None`` where none has been measured."""

    def seconds(self, expected_rate: float) -> float:
        """Return how long one worker would need for it all (at ``expected_rate`` while none is measured)."""
        return self.images / (self.images_per_second or expected_rate)


class BacklogStore:
    """Reads the backlog: one row a job that is not finished, never an item row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_models(self, models: Sequence[str]) -> list[Backlog]:
        """Return the backlog of each of ``models``, in their order; one without work has zeros."""
        now = self._database.now()
        jobs = (
            select(
                JobRow.model,
                func.sum(JobRow.total - JobRow.succeeded - JobRow.failed),
                func.min(JobRow.created_at),
            )
            .where(IS_ACTIVE, JobRow.deleted_at.is_(None))
            .group_by(JobRow.model)
        )
        workers = (
            select(WorkerRow.model, func.count(), func.avg(WorkerRow.images_per_second))
            .where(is_alive(self._database))
            .group_by(WorkerRow.model)
        )
        with self._database.read() as connection:
            moment = connection.execute(select(now)).scalar_one()
            waiting = {row[0]: row[1:] for row in connection.execute(jobs)}
            alive = {row[0]: row[1:] for row in connection.execute(workers)}
        found = []
        for model in models:
            images, oldest = waiting.get(model, (0, None))
            count, rate = alive.get(model, (0, None))
            age = (moment - oldest).total_seconds() if oldest else 0.0
            found.append(
                Backlog(model, int(images or 0), max(0.0, age), count, float(rate) if rate else None)
            )
        return found
