"""Faults in jobs that run, overlapping as they do in life; and Celery's known trap.

Every one of them, many times, one by one or at random for an hour: ``make chaos``, ``make soak``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.cluster import FaultyCluster, faulty_cluster
from tests.chaos.faults import all_faults
from tests.processes import wait_until

SEED = 1
FAULTS = 12
PAUSE_S = 1.2
SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SOAK_PAUSE_S = 3.6
# Most faults need a host of their own, for as long as it takes to lose it and to start it again.
SOAK_HOSTS = 5


@pytest.fixture
def cluster() -> Iterator[FaultyCluster]:
    with faulty_cluster() as running:
        yield running


@pytest.fixture
def large_cluster() -> Iterator[FaultyCluster]:
    with faulty_cluster(SOAK_HOSTS) as running:
        yield running


def campaign(cluster: FaultyCluster, count: int, pause_s: float) -> Campaign:
    """Inject so many faults at random and hold every image to account."""
    run = Campaign(cluster, SEED)
    run.at_random(all_faults(), count, pause_s)
    account = run.settle()
    print(run.table())
    assert account.wrong == []
    assert (account.lost, account.double) == (0, 0)
    return run


@pytest.mark.timeout(600)
def test_a_minute_of_faults(cluster: FaultyCluster) -> None:
    run = campaign(cluster, FAULTS, PAUSE_S)
    assert len(run.injections) == FAULTS, run.missed


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_fault_once(cluster: FaultyCluster) -> None:
    faults = len(all_faults())
    run = campaign(cluster, faults, PAUSE_S)
    assert len(run.injections) == faults, run.missed


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_an_hour_of_faults_at_random(large_cluster: FaultyCluster) -> None:
    count = int(60 * SOAK_MINUTES / SOAK_PAUSE_S)
    run = campaign(large_cluster, count, SOAK_PAUSE_S)
    assert len(run.injections) == count, run.missed


@pytest.mark.timeout(600)
def test_a_worker_that_believes_it_consumes(cluster: FaultyCluster) -> None:
    """The known trap: after the broker's restart the only worker is connected, and hears nothing ever again.

    Its connections end in a router that forgot them; the new Redis has never heard of them.
    """
    trapped, other = cluster.hosts
    other.kill()
    job_id = cluster.submit_pictures(400)
    cluster.wait_at_work(trapped)
    trapped.links.redis.forget()
    cluster.redis.kill()
    cluster.redis.start()
    in_hand = cluster.done(job_id) + 100
    wait_until(lambda: cluster.done(job_id) > in_hand, 150, "recovery without a hand on it")
    wait_until(lambda: cluster.job(job_id).status == "completed", 300, "the job's end")
    account = cluster.account({job_id})
    assert (account.lost, account.double, account.wrong) == (0, 0, [])
