"""Settings become services here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.archive_source import KIND as ARCHIVE
from jobs.archive_source import ArchiveSource
from jobs.backlog import BacklogMetric
from jobs.expansion import Expander, ExpansionSource
from jobs.intake import Intake
from jobs.listing import KIND as PREFIX
from jobs.listing import PrefixSource
from jobs.lists import KIND as LIST
from jobs.lists import ListSource
from jobs.manifest_source import KIND as MANIFEST
from jobs.manifest_source import ManifestSource
from jobs.objects import ObjectStore
from jobs.objects.folder import FolderObjects
from jobs.objects.s3 import S3, S3Objects
from jobs.objects.sources import Sources
from jobs.outputs import OutputWriter
from jobs.queue import JobQueue
from jobs.queue.celery import CeleryQueue
from jobs.queue.embedded import EmbeddedQueue
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.database import open_database
from jobs.sweep import Sweep
from jobs.tidying import Tidying
from jobs.tracing import stop_tracing
from jobs.urls import UrlGuard
from jobs.webhooks import WebhookSender


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
    tidying: Tidying
    backlog: BacklogMetric
    outputs: OutputWriter
    expander: Expander
    urls: UrlGuard

    def start(self) -> None:
        """Recover, expand, tidy and tell the backlog in the background, in turn with all other processes."""
        self.sweep.start()
        self.tidying.start()
        self.backlog.start()
        self.outputs.start()
        self.expander.start()

    def close(self) -> None:
        """Stop what runs in the background and let go of every connection."""
        self.sweep.stop()
        self.tidying.stop()
        self.backlog.stop()
        self.outputs.stop()
        self.expander.stop()
        self.queue.close()
        self.store.close()
        stop_tracing()


def build_services(settings: Settings) -> Services:
    """Make the services of a process; nothing connects before it is used.

    Raises ``StartupError`` where the data folder is unusable or belongs to another process.
    """
    store = Store(open_database(settings), settings.retention_days)
    s3 = S3(settings.s3_public_url)
    objects: ObjectStore = S3Objects(s3, settings.bucket) if settings.bucket else _folder(settings)
    queue: JobQueue = CeleryQueue(settings.redis_url) if settings.redis_url else EmbeddedQueue()
    urls = UrlGuard(settings.trusted_hosts)
    expansions: dict[str, ExpansionSource] = {LIST: ListSource(objects)}
    expander = Expander(store, objects, queue, expansions, settings.max_images)
    intake = Intake(settings, store, queue, objects, expander.wake)
    expansions[ARCHIVE] = ArchiveSource(objects, settings.max_image_bytes)
    expansions[PREFIX] = PrefixSource(s3, intake.access)
    expansions[MANIFEST] = ManifestSource(s3, intake.references_of, intake.access)
    return Services(
        settings=settings,
        store=store,
        objects=objects,
        sources=Sources(objects, s3, urls, settings),
        queue=queue,
        intake=intake,
        sweep=Sweep(store, queue, WebhookSender(store.webhooks, urls)),
        tidying=Tidying(store, objects),
        backlog=BacklogMetric(settings, store),
        outputs=OutputWriter(store, s3, intake.access),
        expander=expander,
        urls=urls,
    )


def _folder(settings: Settings) -> FolderObjects:
    return FolderObjects(settings.data_dir / "objects")
