"""The queue, the same in memory and over Celery on Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from jobs.errors import BrokerUnavailable
from jobs.queue import JobQueue, Message, publish, queue_name
from jobs.queue.celery import CeleryQueue
from jobs.queue.embedded import EmbeddedQueue
from tests.servers import Redis

BULK, FAST = queue_name("small", fast=False), queue_name("small", fast=True)


@pytest.fixture(params=["embedded", "celery"])
def queue(request: pytest.FixtureRequest) -> Iterator[JobQueue]:
    """An empty queue, once per kind."""
    made: JobQueue
    if request.param == "embedded":
        made = EmbeddedQueue()
    else:
        made = CeleryQueue(request.getfixturevalue("redis_server").url)
    yield made
    made.close()


def test_published_messages_wait_in_their_queue(queue: JobQueue) -> None:
    queue.check()
    assert queue.depth(BULK) == 0
    queue.publish([Message(BULK, "job_1", n) for n in range(5)] + [Message(FAST, "job_2", 0)])
    queue.publish([])
    assert queue.depth(BULK) == 5
    assert queue.depth(FAST) == 1


def test_a_message_is_versioned_ids_and_nothing_else(redis_server: Redis) -> None:
    import redis

    queue = CeleryQueue(redis_server.url)
    queue.publish([Message(BULK, "job_1", 7)])
    with redis.Redis.from_url(redis_server.url) as client:
        (raw,) = client.lrange(BULK, 0, -1)
    queue.close()
    import base64

    body = json.loads(base64.b64decode(json.loads(raw)["body"]))
    assert body[0] == [1, "job_1", 7]
    assert body[1] == {}
    assert len(raw) < 2000


def test_a_broker_that_is_gone_is_said_and_found_again(redis_server: Redis) -> None:
    queue = CeleryQueue(redis_server.url)
    queue.publish([Message(BULK, "job_1", 0)])
    redis_server.kill()
    with pytest.raises(BrokerUnavailable):
        queue.check()
    with pytest.raises(BrokerUnavailable):
        queue.depth(BULK)
    assert publish(queue, [Message(BULK, "job_1", 1)]) is False
    redis_server.start()
    assert publish(queue, [Message(BULK, "job_1", 1)]) is True
    assert queue.depth(BULK) == 1
    queue.close()


def test_a_broker_that_hangs_is_soon_left_to_the_sweep(redis_server: Redis) -> None:
    """Whoever submits a job waits for this."""
    queue = CeleryQueue(redis_server.url)
    queue.publish([Message(BULK, "job_1", 0)])
    redis_server.pause()
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        queue.publish([Message(BULK, "job_1", 1)])
    assert time.monotonic() - started < 20
    redis_server.resume()
    queue.publish([Message(BULK, "job_1", 2)])
    queue.close()


def test_the_embedded_queue_serves_small_jobs_first() -> None:
    queue = EmbeddedQueue()
    queue.publish([Message(BULK, "job_1", 0), Message(FAST, "job_2", 0)])
    assert queue.take([FAST, BULK], 0) == Message(FAST, "job_2", 0)
    assert queue.take([FAST, BULK], 0) == Message(BULK, "job_1", 0)
    assert queue.take([FAST, BULK], 0.01) is None
