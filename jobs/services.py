"""Settings become services here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.intake import Intake
from jobs.objects import ObjectStore
from jobs.objects.folder import FolderObjects
from jobs.objects.s3 import S3, S3Objects
from jobs.objects.sources import Sources
from jobs.queue import JobQueue
from jobs.queue.celery import CeleryQueue
from jobs.queue.embedded import EmbeddedQueue
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.database import open_database
from jobs.sweep import Sweep
from jobs.urls import UrlGuard


@dataclass(frozen=True)
class Services:
    """What a process works with."""

    settings: Settings
    store: Store
    objects: ObjectStore
    sources: Sources
    queue: JobQueue
    intake: Intake
    sweep: Sweep
    urls: UrlGuard

    def close(self) -> None:
        """Stop the sweep and let go of every connection."""
        self.sweep.stop()
        self.queue.close()
        self.store.close()


def build_services(settings: Settings) -> Services:
    """Make the services of a process; nothing connects before it is used.

    Raises ``StartupError`` where the data folder is unusable or belongs to another process.
    """
    store = Store(open_database(settings), settings.retention_days)
    s3 = S3()
    objects: ObjectStore = S3Objects(s3, settings.bucket) if settings.bucket else _folder(settings)
    queue: JobQueue = CeleryQueue(settings.redis_url) if settings.redis_url else EmbeddedQueue()
    return Services(
        settings=settings,
        store=store,
        objects=objects,
        sources=Sources(objects, s3, settings.max_image_bytes),
        queue=queue,
        intake=Intake(settings, store, queue),
        sweep=Sweep(store, objects, queue),
        urls=UrlGuard(settings.trusted_hosts),
    )


def _folder(settings: Settings) -> FolderObjects:
    return FolderObjects(settings.data_dir / "objects")
