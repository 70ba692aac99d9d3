"""Removes what is deleted, expired or abandoned: not in the sweep, for a large job takes minutes."""

from __future__ import annotations

import logging

from jobs.errors import StorageUnavailable
from jobs.objects import ObjectStore, job_prefix
from jobs.store import Store
from jobs.turns import Turns

log = logging.getLogger(__name__)

PERIOD_S = 2.0
# Every so many rounds: what is due after hours or days.
RARELY = 30
UPLOADS_AT_ONCE = 1000
# An object store that is away altogether is not asked for every job.
REFUSALS_AT_ONCE = 3


class Tidying:
    """One process's part in the removal of jobs and uploads: objects first, then rows in slices."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._turns = Turns(store.sweeps, "tidying", PERIOD_S, self._work)
        self._rounds = 0

    def start(self) -> None:
        """Tidy every two seconds in a thread."""
        self._turns.start()

    def stop(self) -> None:
        """End the thread."""
        self._turns.stop()

    def run_once(self) -> bool:
        """Do every step if it is this process's turn; return whether it was."""
        return self._turns.run_once()

    def _work(self) -> None:
        rarely = self._rounds % RARELY == 0
        self._rounds += 1
        if rarely:
            self._store.sweeps.expire_jobs()
        self._remove_deleted()
        if rarely:
            self._remove_abandoned()
            self._store.sweeps.forget_old()
            self._store.webhooks.forget_old()
            self._store.bucket_events.forget_old()
            self._store.sessions.forget_old()

    def _remove_deleted(self) -> None:
        """Remove every deleted job; one whose objects cannot be removed does not hold up the others."""
        refusals = 0
        for job_id in self._store.sweeps.deleted_jobs():
            if self._turns.stopping or refusals == REFUSALS_AT_ONCE:
                return
            try:
                self._remove_job(job_id)
            except StorageUnavailable as error:
                refusals += 1
                log.warning("the objects of %s will be removed later: %s", job_id, error)

    def _remove_job(self, job_id: str) -> None:
        self._turns.keep()
        self._objects.delete_prefix(job_prefix(job_id))
        self._objects.delete(self._store.uploads.of_job(job_id))
        while self._store.sweeps.delete_rows(job_id) and not self._turns.stopping:
            self._turns.keep()

    def _remove_abandoned(self) -> None:
        """Remove what requests that died, and uploads that no job took, left behind."""
        for job_id in self._store.sweeps.abandoned_uploads():
            self._objects.delete_prefix(job_prefix(job_id))
            self._store.submit.forget_upload(job_id)
        while uploads := self._store.uploads.abandoned(UPLOADS_AT_ONCE):
            self._objects.delete([upload.key for upload in uploads])
            self._store.uploads.forget(uploads)
            self._turns.keep()
