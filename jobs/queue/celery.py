"""The queue of distributed mode: Celery messages on Redis."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobs.errors import BrokerUnavailable
from jobs.queue import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

TASK_NAME = "captionfleet.caption_chunk"
CONNECT_SECONDS = 3
# A client waits while its job is announced, so a broker that hangs is soon left to the sweep.
ANSWER_SECONDS = 3
# Past this a message whose worker vanished comes back; by then the lease has long recovered its chunk.
VISIBILITY_SECONDS = 3600


def celery_app(redis_url: str) -> Celery:
    """Return the Celery application that publisher and worker share; nothing connects yet."""
    from celery import Celery

    app = Celery("captionfleet", broker=redis_url)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "queue_order_strategy": "priority",
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        task_ignore_result=True,
        task_create_missing_queues=True,
        task_serializer="json",
        accept_content=["json"],
        task_protocol=2,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
    )
    if redis_url.startswith("rediss://"):
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return app


class CeleryQueue:
    """A ``JobQueue`` that publishes to Celery workers."""

    def __init__(self, redis_url: str) -> None:
        self._app = celery_app(redis_url)
        self._app.conf.broker_transport_options["socket_timeout"] = ANSWER_SECONDS

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages over one pooled connection, trying for a few seconds."""
        if not messages:
            return
        with _translated(), self._app.producer_pool.acquire(block=True, timeout=10) as producer:
            for message in messages:
                self._app.send_task(
                    TASK_NAME,
                    args=(message.version, message.job_id, message.chunk),
                    queue=message.queue,
                    producer=producer,
                    retry=True,
                    retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.3},
                )

    def depth(self, queue: str) -> int:
        """Messages waiting in a queue, those already handed to a worker not counted."""
        with self._client() as client:
            return int(client.llen(queue))

    def check(self) -> None:
        """Ping the broker."""
        with self._client() as client:
            client.ping()

    def close(self) -> None:
        """Close the pooled connections."""
        self._app.close()

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with _translated(), self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
            yield connection.default_channel.client


@contextmanager
def _translated() -> Iterator[None]:
    from kombu.exceptions import KombuError
    from redis.exceptions import RedisError

    try:
        yield
    except (KombuError, RedisError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error
