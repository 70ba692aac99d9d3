"""S3: refuses, stalls, breaks off, is gone; objects that are gone or not ours to read."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.captioners import colour_png
from tests.chaos.cluster import SIDE_JOB_IMAGES, FaultyCluster
from tests.chaos.faults import Fault
from tests.chaos.faults.workers import pause
from tests.chaos.links import Link

GET = b"GET /"


def answer(status: str, code: str) -> bytes:
    """Return an error as S3 sends it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/xml",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", body]).encode()


@dataclass(frozen=True)
class Trouble:
    """Every host's way to S3 is in trouble for a few seconds."""

    name: str
    begin: Callable[[Link], None]

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.servers["s3"]:
            cluster.a_job()
            for host in cluster.hosts:
                self.begin(host.links.s3)
            pause(rng.uniform(2, 5))
            for host in cluster.hosts:
                host.links.s3.mend()


def fail(link: Link) -> None:
    link.answers = {GET: answer("500 Internal Server Error", "InternalError")}


def refuse(link: Link) -> None:
    link.answers = {GET: answer("503 Slow Down", "SlowDown")}


def slow(link: Link) -> None:
    link.delay_s = 1.0


def reset(link: Link) -> None:
    link.cut()
    link.breaks = True


class Gone:
    """The server is killed, and started again after a while."""

    name = "S3 restarted"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.servers["s3"]:
            cluster.a_job()
            cluster.s3.kill()
            pause(rng.uniform(1, 4))
            cluster.s3.start()


class Silent:
    """S3 never answers what one host has asked: only the client's own time limit ends the wait (30 s)."""

    name = "S3 answers never come"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            host.links.s3.forget()


class ObjectDeleted:
    """An image of a running job is deleted from S3 before anybody fetched it."""

    name = "object deleted before fetch"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.servers["s3"]:
            key = f"deleted-{rng.randrange(10**9)}.png"
            where = {"Bucket": cluster.pictures_bucket, "Key": key}
            client = cluster.s3.client()
            client.put_object(**where, Body=colour_png(0))
            cluster.submit_pictures(SIDE_JOB_IMAGES, missing=key)
            client.delete_object(**where)


class AccessDenied:
    """S3 does not let the workers read one image."""

    name = "access denied"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        key = f"denied-{rng.randrange(10**9)}.png"
        with cluster.servers["s3"]:
            for host in cluster.hosts:
                host.links.s3.rules[key.encode()] = answer("403 Forbidden", "AccessDenied")
            cluster.submit_pictures(SIDE_JOB_IMAGES, missing=key)


FAULTS: list[Fault] = [
    Trouble("S3 answers 500", fail),
    Trouble("S3 answers 503", refuse),
    Trouble("S3 slow", slow),
    Trouble("S3 resets connections", reset),
    Gone(),
    Silent(),
    ObjectDeleted(),
    AccessDenied(),
]
