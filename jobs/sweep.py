"""The sweep: finds lost or due work and sees that it goes on. Every process runs it; a lease lets one act."""

from __future__ import annotations

import logging
from collections import defaultdict

from jobs.metrics import CHUNKS_RECOVERED, MESSAGES_REPEATED
from jobs.queue import JobQueue, Message, publish
from jobs.store import Store
from jobs.turns import Turns
from jobs.webhooks import WebhookSender

log = logging.getLogger(__name__)

PERIOD_S = 2.0


class Sweep(Turns):
    """One process's part in the sweep."""

    def __init__(self, store: Store, queue: JobQueue, webhooks: WebhookSender) -> None:
        super().__init__(store.sweeps, "sweep", PERIOD_S)
        self._store = store
        self._queue = queue
        self._webhooks = webhooks

    def stop(self) -> None:
        """End the thread."""
        self._webhooks.stop()
        super().stop()

    def recover_all(self) -> None:
        """Take up everything at once: for the one process of embedded mode, whose predecessor is dead."""
        self._store.sweeps.recover_all()
        publish(self._queue, self._store.sweeps.unclaimed(at_once=True))

    def recover_worker(self, worker: str, *, crashed: bool) -> None:
        """Take up at once what a worker had in hand that has just died."""
        self._announce(self._store.sweeps.recover_worker(worker, crashed=crashed))

    def act(self) -> None:
        """Do every step once."""
        sweeps = self._store.sweeps
        self._announce(sweeps.recover_leases())
        publish(self._queue, sweeps.due_retries())
        publish(self._queue, sweeps.widen_windows())
        sweeps.finish_cancels()
        self._webhooks.send_due()
        # Last, for these ask the broker, which may be away.
        self._repeat_lost(sweeps.unclaimed())
        self._send_again(sweeps.overtaken())

    def _announce(self, recovered: list[Message]) -> None:
        CHUNKS_RECOVERED.add(len(recovered))
        publish(self._queue, recovered)

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
                MESSAGES_REPEATED.add(len(messages))
                self._store.sweeps.renotice(messages)
