"""The register of workers: who serves which model, how fast, last seen when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.store.database import Database
from jobs.store.states import is_alive
from jobs.tables import WorkerRow


@dataclass(frozen=True)
class Worker:
    """A worker process: id, model, what it runs on and its measured rate."""

    id: str
    model: str
    version: str
    digest: str
    device: str
    images_per_second: float | None
    takes_prompt: bool = False
    last_seen: datetime | None = None


class WorkerStore:
    """One row a worker process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def see(self, worker: Worker) -> None:
        """Register a worker or say that it is still there."""
        now = self._database.now()
        values = {
            "model": worker.model,
            "version": worker.version,
            "digest": worker.digest,
            "device": worker.device,
            "images_per_second": worker.images_per_second,
            "takes_prompt": worker.takes_prompt,
            "last_seen": now,
        }
        dialect = sqlite if self._database.is_sqlite else postgresql
        statement = dialect.insert(WorkerRow).values(id=worker.id, started_at=now, **values)
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    def leave(self, worker_id: str) -> None:
        """Forget a worker that stops."""
        with self._database.write() as connection:
            connection.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    def alive(self) -> list[Worker]:
        """Return the workers seen lately."""
        columns = (
            WorkerRow.id,
            WorkerRow.model,
            WorkerRow.version,
            WorkerRow.digest,
            WorkerRow.device,
            WorkerRow.images_per_second,
            WorkerRow.takes_prompt,
            WorkerRow.last_seen,
        )
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).where(is_alive(self._database)))
            return [Worker(*row) for row in rows]
