"""A small deployment in one process: SQLite, a folder, and a pipeline over a captioner that reads colours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from jobs.ids import new_id
from jobs.objects import image_key
from jobs.records import Item, Job, JobSpec
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store.schema import upgrade
from jobs.store.submit import NewItem, NewJob
from jobs.tables import ChunkRow
from tests.captioners import ColourCaptioner, colour_png
from worker.exclusion import Exclusion
from worker.loading import serving
from worker.pipeline import Pipeline

OWNER = "ann"


@dataclass
class Deployment:
    """Services, and short ways to use them."""

    services: Services
    captioner: ColourCaptioner
    worker_id: str = "w1"

    def submit(self, images: Sequence[bytes | None], chunk: int = 32, **spec: Any) -> str:
        """Make a job of uploads in chunks of ``chunk`` images; ``None`` is an object that is gone."""
        job = NewJob(new_id("job"), OWNER, "small", "upload", JobSpec(**spec))
        with self.services.objects.batch() as batch:
            for position, data in enumerate(images):
                if data is not None:
                    writer = batch.open(image_key(job.id, position), "image/png")
                    writer.write(data)
                    writer.close()
            batch.flush()
        keys = [image_key(job.id, position) for position in range(len(images))]
        items = [NewItem(f"{n}.png", f"{n}.png", "upload", object_key=key) for n, key in enumerate(keys)]
        self._rate(chunk / 4)
        self.services.intake.submit(job, items)
        return job.id

    def pictures(self, count: int, chunk: int = 32, **spec: Any) -> str:
        """Make a job of ``count`` good pictures."""
        return self.submit([colour_png(number) for number in range(count)], chunk, **spec)

    def _rate(self, images_per_second: float) -> None:
        """Let the next job be cut as for a worker of this speed."""
        from jobs.store.workers import Worker

        self.services.store.workers.see(Worker("ruler", "small", "1", "", "cpu", images_per_second))

    def job(self, job_id: str) -> Job:
        return self.services.store.jobs.get(OWNER, job_id)[0]

    def items(self, job_id: str) -> list[Item]:
        return [item for page in self.services.store.jobs.results(OWNER, job_id) for item in page]

    def chunk(self, job_id: str, number: int = 0) -> Any:
        with self.services.store.database.read() as connection:
            query = select(ChunkRow).where(ChunkRow.job_id == job_id, ChunkRow.number == number)
            return connection.execute(query).one()

    def set_chunk(self, job_id: str, number: int = 0, **values: Any) -> None:
        with self.services.store.database.write() as connection:
            chunk = update(ChunkRow).where(ChunkRow.job_id == job_id, ChunkRow.number == number)
            connection.execute(chunk.values(**values))

    @contextmanager
    def pipeline(self, **changed: Any) -> Iterator[Pipeline]:
        """Run a pipeline; ``changed`` replaces services."""
        services = replace(self.services, **changed)
        served = replace(serving(services.settings, "small", self.captioner), worker_id=self.worker_id)
        pipeline = Pipeline(services, served, Exclusion())
        try:
            yield pipeline
        finally:
            self.captioner.gate.set()
            pipeline.stop(5)


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Make a deployment, with settings by name."""
    made: list[Services] = []

    def make(**settings: Any) -> Deployment:
        chosen = {"decode_processes": 1, "batch_size": 16, "lease_s": 30} | settings
        services = build_services(Settings(data_dir=tmp_path / str(len(made)), **chosen))
        upgrade(services.store.database)
        made.append(services)
        return Deployment(services, ColourCaptioner())

    yield make
    for services in made:
        services.close()


def in_thread(run: Callable[[], object]) -> threading.Thread:
    """Run something in a thread of the test."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
