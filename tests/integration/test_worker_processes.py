"""Real worker processes on real Redis, PostgreSQL and S3: sharing, order, shutdown, restart."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.queue import Message, queue_name
from tests.captioners import colour_png
from tests.clusters import Cluster, child_of, crash, run_cluster
from tests.processes import ended, reserve_port, wait_until
from tests.scrapes import scrape
from tests.servers import S3, Postgres, Redis

FAST, BULK = queue_name("small", fast=True), queue_name("small", fast=False)


@pytest.fixture
def cluster(redis_server: Redis, postgres: Postgres, postgres_url: str, s3: S3) -> Iterator[Cluster]:
    with run_cluster(redis_server, postgres, postgres_url, s3, {}) as running:
        yield running


def test_two_workers_share_a_job(cluster: Cluster) -> None:
    for name in ("colours-a", "colours-b"):
        cluster.worker(name=name, seconds_per_batch=0.05, wait=False)
    cluster.wait_workers(2)
    job_id = cluster.pictures(300)
    cluster.finish(job_id)
    cluster.assert_all_captioned(job_id)
    by_worker = [item.model for item in cluster.items(job_id)]
    assert min(by_worker.count("colours-a"), by_worker.count("colours-b")) >= 60
    assert all(chunk.attempt == 1 for chunk in cluster.chunks(job_id)), "a chunk was run twice"
    assert (cluster.services.queue.depth(FAST), cluster.services.queue.depth(BULK)) == (0, 0)


def test_a_small_job_does_not_wait_for_a_large_one(cluster: Cluster) -> None:
    cluster.worker(seconds_per_batch=0.5, CAPTIONFLEET_BATCH_SIZE=8)
    large = cluster.pictures(400, chunk=64)
    cluster.wait_done(large, 1)
    started = time.monotonic()
    small = cluster.submit([colour_png(7)])
    cluster.finish(small)
    assert time.monotonic() - started < 4, "eight batches of a chunk in hand took longer than that"
    assert cluster.job(large).status == "running"


def test_sigterm_finishes_what_is_in_hand(cluster: Cluster) -> None:
    worker = cluster.worker(seconds_per_batch=0.3, CAPTIONFLEET_BATCH_SIZE=8)
    job_id = cluster.pictures(200)
    cluster.wait_done(job_id, 16)
    assert worker.stop(signal.SIGTERM) == 0, worker.output
    states = {chunk.state for chunk in cluster.chunks(job_id)}
    assert "leased" not in states
    assert not cluster.alive(), "the worker left the register"
    assert sum(chunk.suspicions + chunk.failures for chunk in cluster.chunks(job_id)) == 0
    cluster.worker()
    cluster.finish(job_id)
    cluster.assert_all_captioned(job_id)


def test_sigquit_hands_back_at_once(cluster: Cluster) -> None:
    worker = cluster.worker(seconds_per_batch=3, wait=False)
    other = cluster.worker(seconds_per_batch=0.01, wait=False)
    cluster.wait_workers(2)
    other.pause()
    job_id = cluster.pictures(64)
    wait_until(lambda: any(chunk.state == "leased" for chunk in cluster.chunks(job_id)))
    other.resume()
    started = time.monotonic()
    assert worker.stop(signal.SIGQUIT) == 0, worker.output
    assert time.monotonic() - started < 10
    cluster.finish(job_id)
    cluster.assert_all_captioned(job_id)
    assert sum(chunk.suspicions for chunk in cluster.chunks(job_id)) == 0


def test_a_message_of_a_newer_version_is_left_in_the_queue(cluster: Cluster) -> None:
    worker = cluster.worker()
    cluster.services.queue.publish([Message(BULK, "job_x", 0, version=99)])
    wait_until(lambda: worker.output.count("left to a newer worker") >= 2)
    # In the meantime others are served.
    cluster.finish(cluster.pictures(40))
    time_seen = worker.output.count("left to a newer worker")
    assert worker.stop() == 0
    assert cluster.services.queue.depth(BULK) == 1, worker.output
    assert time_seen < 30


def test_the_parent_starts_its_child_again(cluster: Cluster) -> None:
    worker = cluster.worker()
    first = child_of(worker)
    crash(first)
    second = wait_until(lambda: (pid := child_of(worker)) != first and pid)
    assert "ended with status -9" in worker.output
    cluster.finish(cluster.pictures(3))
    # A child whose parent is gone ends too, and hands back what it has.
    crash(worker.pid)
    worker.wait()
    wait_until(lambda: ended(second), what="the orphan's end")


def test_a_worker_shows_what_it_counts(cluster: Cluster) -> None:
    port = reserve_port()
    worker = cluster.worker(CAPTIONFLEET_METRICS_PORT=port)
    cluster.finish(cluster.pictures(40))
    found = scrape(port)
    assert found["captionfleet_worker_images_total", "succeeded"] == 40
    assert found["captionfleet_worker_batch_images_sum",] == 40
    assert found["captionfleet_worker_info", "cpu", "small", "colours-1"] == 1
    assert found["captionfleet_webhook_tries_total", "delivered"] == 0
    assert not any(name.startswith(("captionfleet_http", "captionfleet_backlog")) for name, *_ in found)
    # Its successor listens on the same port, and begins at zero.
    crash(child_of(worker))
    wait_until(lambda: scrape(port).get(("captionfleet_worker_images_total", "succeeded")) == 0, 60)


def test_a_worker_that_cannot_start_says_why_and_ends(cluster: Cluster) -> None:
    with cluster.services.store.database.write() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '0000'")
    worker = cluster.worker(wait=False)
    assert worker.wait() == 2
    assert worker.output.count("run `captionfleet migrate`") == 1, "it was started again"


def test_a_worker_waits_for_its_database_and_broker(cluster: Cluster) -> None:
    cluster.redis.kill()
    cluster.postgres.stop()
    worker = cluster.worker(wait=False)
    wait_until(lambda: "trying again: the database does not answer" in worker.output)
    cluster.postgres.start()
    wait_until(lambda: "Cannot connect to redis" in worker.output)
    cluster.redis.start()
    cluster.finish(cluster.pictures(3))
    assert worker.alive


def test_a_worker_that_stops_consuming_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    fault.touch()
    worker = cluster.worker(FAULT=fault, SILENCE=4)
    first = child_of(worker)
    wait_until(lambda: not fault.exists())
    job_id = cluster.pictures(40)
    cluster.finish(job_id, 60)
    assert "none has arrived for" in worker.output
    assert child_of(worker) != first
    cluster.assert_all_captioned(job_id)
