"""The job store: the only place with SQL."""

from __future__ import annotations

from jobs.store.backlog import BacklogStore
from jobs.store.bucket_events import BucketEventStore
from jobs.store.cache import CacheStore
from jobs.store.chunks import ChunkStore
from jobs.store.database import Database
from jobs.store.expansions import ExpansionStore
from jobs.store.jobs import JobStore
from jobs.store.keys import KeyStore
from jobs.store.outputs import OutputStore
from jobs.store.retention import RetentionStore
from jobs.store.rules import RuleStore
from jobs.store.sessions import SessionStore
from jobs.store.stuck import StuckStore
from jobs.store.submit import SubmitStore
from jobs.store.sweeps import SweepStore
from jobs.store.uploads import UploadStore
from jobs.store.usage import UsageStore
from jobs.store.webhooks import WebhookStore
from jobs.store.workers import WorkerStore

DAY_S = 86400


class Store:
    """All that is kept, by who asks for it."""

    def __init__(self, database: Database, retention_days: float) -> None:
        self.database = database
        self.submit = SubmitStore(database, retention_days * DAY_S)
        self.jobs = JobStore(database)
        self.cache = CacheStore(database)
        self.chunks = ChunkStore(database, retention_days * DAY_S)
        self.expansions = ExpansionStore(database, retention_days * DAY_S)
        self.sweeps = SweepStore(database, retention_days * DAY_S)
        self.retention = RetentionStore(database)
        self.workers = WorkerStore(database)
        self.backlog = BacklogStore(database)
        self.keys = KeyStore(database)
        self.sessions = SessionStore(database, self.keys)
        self.usage = UsageStore(database)
        self.webhooks = WebhookStore(database)
        self.stuck = StuckStore(database, retention_days * DAY_S)
        self.uploads = UploadStore(database)
        self.outputs = OutputStore(database)
        self.rules = RuleStore(database)
        self.bucket_events = BucketEventStore(database)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
