"""The sweep: finds lost or due work and sees that it goes on. Every process runs it; a lease lets one act."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import defaultdict

from jobs.backlog import BacklogMetric
from jobs.errors import CaptionfleetError
from jobs.objects import ObjectStore, job_prefix
from jobs.queue import JobQueue, Message, publish
from jobs.store import Store
from jobs.webhooks import WebhookSender

log = logging.getLogger(__name__)

PERIOD_S = 2.0
TURN_S = 15.0
RARELY = 30
UPLOADS_AT_ONCE = 1000


class Sweep:
    """One process's part in the sweep."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        queue: JobQueue,
        webhooks: WebhookSender,
        backlog: BacklogMetric,
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._objects = objects
        self._queue = queue
        self._webhooks = webhooks
        self._holder = f"sweep_{secrets.token_hex(6)}"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rounds = 0

    def start(self) -> None:
        """Sweep every two seconds in a thread."""
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._webhooks.stop()
        if self._thread is not None:
            self._thread.join()

    def recover_all(self) -> None:
        """Take up everything at once: for the one process of embedded mode, whose predecessor is dead."""
        self._store.sweeps.expire_all_leases()
        self._store.sweeps.recover_leases()
        publish(self._queue, self._store.sweeps.unclaimed(at_once=True))

    def run_once(self) -> bool:
        """Do every step if it is this process's turn; return whether it was."""
        if not self._store.sweeps.take_turn(self._holder, TURN_S):
            return False
        sweeps = self._store.sweeps
        publish(self._queue, sweeps.recover_leases())
        publish(self._queue, sweeps.due_retries())
        publish(self._queue, sweeps.widen_windows())
        self._repeat_lost(sweeps.unclaimed())
        self._send_again(sweeps.overtaken())
        while sweeps.finish_cancels() and not self._stop.is_set():
            sweeps.take_turn(self._holder, TURN_S)
        self._webhooks.send_due()
        self._remove_deleted()
        if self._rounds % RARELY == 0:
            self._backlog.publish()
            self._remove_old()
        self._rounds += 1
        return True

    def _repeat_lost(self, messages: list[Message]) -> None:
        """Send messages again where the queue holds fewer than there are chunks waiting: some were lost."""
        by_queue: defaultdict[str, list[Message]] = defaultdict(list)
        for message in messages:
            by_queue[message.queue].append(message)
        for queue, waiting in by_queue.items():
            if self._queue.depth(queue) < len(waiting):
                self._send_again(waiting)

    def _send_again(self, messages: list[Message]) -> None:
        if messages:
            log.info("%d messages seem lost; sending them again", len(messages))
            if publish(self._queue, messages):
                self._store.sweeps.renotice(messages)

    def _remove_deleted(self) -> None:
        for job_id in self._store.sweeps.deleted_jobs():
            self._objects.delete_prefix(job_prefix(job_id))
            self._objects.delete(self._store.uploads.of_job(job_id))
            while self._store.sweeps.delete_rows(job_id):
                self._store.sweeps.take_turn(self._holder, TURN_S)

    def _remove_old(self) -> None:
        self._store.sweeps.expire_jobs()
        for job_id in self._store.sweeps.abandoned_uploads():
            self._objects.delete_prefix(job_prefix(job_id))
            self._store.submit.forget_upload(job_id)
        while uploads := self._store.uploads.abandoned(UPLOADS_AT_ONCE):
            self._objects.delete([upload.key for upload in uploads])
            self._store.uploads.forget(uploads)
            self._store.sweeps.take_turn(self._holder, TURN_S)
        self._store.sweeps.forget_old()
        self._store.webhooks.forget_old()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            try:
                self.run_once()
            except CaptionfleetError as error:
                log.warning("the sweep will try again: %s", error)
            except Exception:
                # The sweep is what recovers everything else: it never ends for an error.
                log.exception("the sweep failed and will try again")
