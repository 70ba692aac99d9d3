"""Redis: lost, emptied, paused, full, deaf; and messages that come twice, late or out of order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.queue import Message, queue_name
from tests.chaos.cluster import FaultyCluster
from tests.chaos.faults import Fault
from tests.chaos.faults.workers import pause

PAUSE_S = 30
BULK = queue_name("small", fast=False)


def redis_of(cluster: FaultyCluster) -> Any:
    """Return a client that goes straight to the server."""
    import redis

    return redis.Redis.from_url(cluster.redis.url)


@dataclass(frozen=True)
class Broker:
    """Something done to the Redis server."""

    name: str
    strike: Callable[[FaultyCluster, random.Random], None]

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.servers["redis"]:
            cluster.a_job()
            self.strike(cluster, rng)


def restart_empty(cluster: FaultyCluster, rng: random.Random) -> None:
    """Kill the server; a new one, which knows nothing, comes up after a while."""
    cluster.redis.kill()
    pause(rng.uniform(0, 3))
    cluster.redis.start()


def flush(cluster: FaultyCluster, _rng: random.Random) -> None:
    """Lose everything in it."""
    with redis_of(cluster) as client:
        client.flushall()


def hang(cluster: FaultyCluster, _rng: random.Random) -> None:
    """Freeze the server for half a minute: connections stay open, nothing answers."""
    cluster.redis.pause()
    pause(PAUSE_S)
    cluster.redis.resume()


def fill(cluster: FaultyCluster, rng: random.Random) -> None:
    """Refuse every write for want of memory."""
    with redis_of(cluster) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        pause(rng.uniform(3, 6))
        client.config_set("maxmemory", "0")


def repeat_and_shuffle(cluster: FaultyCluster, rng: random.Random) -> None:
    """Send messages for chunks done, in hand, announced and not yet released, twice and out of order."""
    jobs = cluster.active()
    messages = [Message(BULK, job_id, number) for job_id in jobs for number in range(63)] * 2
    cluster.services.queue.publish(rng.sample(messages, len(messages)))


def redeliver(cluster: FaultyCluster, _rng: random.Random) -> None:
    """Deliver again what is being worked on, as after the broker's visibility timeout."""
    from jobs.queue.celery import celery_app

    with redis_of(cluster) as client, celery_app(cluster.redis.url).connection_for_write() as connection:
        channel = connection.default_channel
        for tag in client.zrange("unacked_index", 0, -1):
            channel.qos.restore_by_tag(tag.decode(), client)


class DeafConnections:
    """A worker's broker connections die without a sign: it believes it consumes, and hears nothing."""

    name = "Redis connections silently dead"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            host.links.redis.forget()


FAULTS: list[Fault] = [
    Broker("Redis restarted empty", restart_empty),
    Broker("Redis FLUSHALL", flush),
    Broker("Redis paused 30 s", hang),
    Broker("Redis out of memory", fill),
    Broker("messages repeated, reordered", repeat_and_shuffle),
    Broker("visibility timeout passes", redeliver),
    DeafConnections(),
]
