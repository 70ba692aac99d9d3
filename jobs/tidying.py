"""Removes what is deleted, expired or abandoned: not in the sweep, for a large job takes minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from jobs.errors import CaptionfleetError, DatabaseUnavailable, StorageUnavailable
from jobs.objects import ObjectStore, job_prefix
from jobs.store import Store
from jobs.store.uploads import DirectUpload
from jobs.turns import Turns

log = logging.getLogger(__name__)

PERIOD_S = 2.0
# Every so many rounds: what is due after hours or days.
RARELY = 30
UPLOADS_AT_ONCE = 1000
# An object store that is away altogether is not asked for every job.
REFUSALS_AT_ONCE = 3
# Some of those may have been removed by another process meanwhile: all are forgotten now and then.
REFUSALS_KEPT = 1000


class _Ended(Exception):
    """The turn is over: the process stops, or another one has it by now."""


class Tidying(Turns):
    """One process's part in the removal of jobs and uploads: objects first, then rows in slices."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        super().__init__(store.sweeps, "tidying", PERIOD_S)
        self._store = store
        self._objects = objects
        self._rounds = 0
        self._refused_jobs: set[str] = set()
        self._refused_uploads: set[str] = set()
        self._refused_direct: set[tuple[str, int]] = set()

    def act(self) -> None:
        """Do every step once."""
        rarely = self._rounds % RARELY == 0
        self._rounds += 1
        try:
            if rarely:
                # Before what may take long or fail.
                self._store.retention.expire_jobs()
                self._forget_old()
            self._remove_each(self._store.retention.deleted_jobs, self._remove_job, self._refused_jobs)
            if rarely:
                self._remove_abandoned()
        except _Ended:
            log.debug("another process goes on, or this one later")

    def _forget_old(self) -> None:
        self._store.retention.forget_old()
        self._store.webhooks.forget_old()
        self._store.bucket_events.forget_old()
        self._store.sessions.forget_old()

    def _remove_each(
        self,
        find: Callable[[Collection[str]], Sequence[str]],
        remove: Callable[[str], None],
        refused: set[str],
    ) -> None:
        """Remove what belongs to jobs; those ``refused`` before come last and hold up no others."""
        if len(refused) > REFUSALS_KEPT:
            refused.clear()
        refusals = 0
        for job_id in find(refused):
            if refusals == REFUSALS_AT_ONCE:
                return
            self._go_on()
            try:
                remove(job_id)
            except (_Ended, DatabaseUnavailable):
                raise
            except CaptionfleetError as error:
                log.warning("the objects of %s will be removed later: %s", job_id, error)
            except Exception:
                log.exception("%s could not be removed and will be tried again", job_id)
            else:
                refused.discard(job_id)
                continue
            # At the next try it comes after those that may succeed.
            refused.add(job_id)
            refusals += 1

    def _remove_job(self, job_id: str) -> None:
        self._objects.delete_prefix(job_prefix(job_id), self._go_on)
        uploads = self._store.uploads.of_job(job_id)
        for start in range(0, len(uploads), UPLOADS_AT_ONCE):
            self._objects.delete(uploads[start : start + UPLOADS_AT_ONCE])
            self._go_on()
        while self._store.retention.delete_rows(job_id):
            self._go_on()

    def _remove_abandoned(self) -> None:
        """Remove what requests that died, and uploads that no job took, left behind."""
        self._remove_each(self._store.retention.abandoned_uploads, self._remove_upload, self._refused_uploads)
        if len(self._refused_direct) > REFUSALS_KEPT:
            self._refused_direct.clear()
        before = len(self._refused_direct)
        while uploads := self._store.uploads.abandoned(UPLOADS_AT_ONCE, self._refused_direct):
            self._remove_direct(uploads)
            if len(self._refused_direct) - before >= REFUSALS_AT_ONCE:
                return
        # Nothing else is left: next time they are tried again.
        self._refused_direct.clear()

    def _remove_direct(self, uploads: Sequence[DirectUpload]) -> None:
        """Remove direct uploads: together, and where that is refused one by one until some are refused."""
        try:
            self._objects.delete([upload.key for upload in uploads])
            self._store.uploads.forget(uploads)
            self._go_on()
        except StorageUnavailable as error:
            if len(uploads) == 1:
                log.warning("the upload %s will be removed later: %s", uploads[0].id, error)
                self._refused_direct.add((uploads[0].batch, uploads[0].number))
                return
            most = len(self._refused_direct) + REFUSALS_AT_ONCE
            for upload in uploads:
                if len(self._refused_direct) < most:
                    self._remove_direct([upload])

    def _remove_upload(self, job_id: str) -> None:
        self._objects.delete_prefix(job_prefix(job_id), self._go_on)
        self._store.submit.forget_upload(job_id)

    def _go_on(self) -> None:
        """Keep the turn in the midst of long work; raise ``_Ended`` where it is over."""
        if self.stopping or not self.keep():
            raise _Ended
