"""The Celery side of a worker process: which messages it takes, and when."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.bootsteps import ConsumerStep
from celery.exceptions import Reject
from celery.worker import WorkController
from celery.worker import state as celery_state
from kombu.connection import Connection
from kombu.messaging import Consumer

from jobs.queue import MESSAGE_VERSION, JobQueue, queue_name
from jobs.queue.celery import TASK_NAME, celery_app
from jobs.settings import Settings
from worker.liveness import ConsumptionWatch

log = logging.getLogger(__name__)

RunChunk = Callable[[str, int], bool]

UNKNOWN_VERSION_PAUSE_S = 1.0
RECONNECT = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}


class CeleryConsumer:
    """Takes a model's messages from Redis and runs each chunk in a thread.

    The model's two queues are consumed side by side, so many chunks of each at a time: a small job never
    waits for a chunk of a large one to end. No message is taken before a thread is free for it: acknowledged
    when its chunk is done, it counts against its queue's prefetch limit until then.
    """

    def __init__(self, settings: Settings, model: str, queue: JobQueue, run_chunk: RunChunk) -> None:
        self._fast, self._bulk = queue_name(model, fast=True), queue_name(model, fast=False)
        threads = settings.concurrency
        self._watch = ConsumptionWatch(queue, {self._fast: threads, self._bulk: threads}, settings.alive_file)
        app = celery_app(settings.redis_url or "")
        app.conf.update(
            # This process's flow control, not recovery: leases recover chunks.
            task_acks_late=True,
            worker_enable_prefetch_count_reduction=False,
            worker_enable_remote_control=False,
            worker_send_task_events=settings.celery_events,
        )
        app.amqp.Connection = SteadyConnection
        # The pool's threads look tasks up in the default application.
        app.set_default()
        _register(app, run_chunk, self._watch)
        app.steps["consumer"].add(_fast_lane(self._fast, threads))
        self._controller = WorkController(
            app=app,
            # Its name for Flower; several may run on one host.
            hostname=f"{model}@{socket.gethostname()}-{os.getpid()}",
            pool="threads",
            concurrency=2 * threads,
            queues=[self._bulk],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=not settings.celery_events,
        )

    def run(self) -> int:
        """Consume until ``stop``; return the exit status, 0 unless something went wrong."""
        self._watch.start()
        try:
            self._controller.start()
        finally:
            self._watch.stop()
        return int(self._controller.exitcode or 0)

    def stop(self) -> None:
        """Take no more messages; ``run`` returns when the chunks in hand have ended."""
        celery_state.should_stop = 0


class SteadyConnection(Connection):
    """A connection that keeps asking for its server at short intervals, however long that is away."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Connect; kombu's own pauses would grow to half a minute, for which nothing would be captioned."""
        return super().ensure_connection(*args, **{**RECONNECT, **options})  # type: ignore[no-untyped-call]


def _register(app: Celery, run_chunk: RunChunk, watch: ConsumptionWatch) -> None:
    @app.task(name=TASK_NAME, bind=True, shared=False)  # type: ignore[untyped-decorator]
    def caption_chunk(self: Any, version: int, *body: Any) -> None:
        queue = self.request.delivery_info["routing_key"]
        with watch.receiving(queue):
            if version > MESSAGE_VERSION:
                _leave_to_newer(self, queue, version, body)
                return
            job_id, number = body
            if not run_chunk(job_id, number):
                # This worker stops: the message goes back to the head of its queue.
                raise Reject("stopping", requeue=True)


def _leave_to_newer(task: Any, queue: str, version: int, body: tuple[Any, ...]) -> None:
    """Send a message that only a newer worker understands to the end of its queue.

    The pause keeps old workers from tossing such messages around as fast as Redis can carry them; at the end
    of the queue they do not keep the messages behind them from anybody.
    """
    log.warning("a message of version %d is left to a newer worker", version)
    time.sleep(UNKNOWN_VERSION_PAUSE_S)
    task.apply_async(args=(version, *body), queue=queue)


def _fast_lane(queue: str, threads: int) -> type[ConsumerStep]:
    """Return the step that consumes the queue of small jobs over a channel, and with a limit, of its own."""

    class FastLane(ConsumerStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, consumer: Any, **options: Any) -> None:
            # The pool has threads for both queues; the main consumer may fill only its own share of them.
            consumer.initial_prefetch_count = threads
            self._consumer = consumer
            super().__init__(consumer, **options)

        def get_consumers(self, channel: Any) -> list[Consumer]:
            fast = Consumer(  # type: ignore[no-untyped-call]
                channel,
                queues=[self._consumer.app.amqp.queues[queue]],
                on_message=self._consumer.create_task_handler(),
                accept=["json"],
                prefetch_count=threads,
            )
            return [fast]

    return FastLane
