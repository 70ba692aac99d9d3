"""Who is cleared of the blame for a lost lease: images of a worker that lives, each time once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jobs.errors import DatabaseUnavailable
from jobs.store.chunks import ChunkStore, Claim
from jobs.store.workers import Worker
from tests.processes import wait_until
from tests.unit.worker.conftest import Deployment, in_thread
from tests.unit.worker.test_pipeline import with_chunks
from worker.leases import Hold, Leases

Deploy = Callable[..., Deployment]

LOST = {"state": "open", "owner": None, "lease_until": None, "suspicions": 1}


class ForgetfulChunks(ChunkStore):
    """A chunk store that does not hear a number of acquittals."""

    unheard = 1

    def absolve(self, claims: Sequence[Claim]) -> None:
        if self.unheard:
            self.unheard -= 1
            raise DatabaseUnavailable("the database does not answer: test")
        super().absolve(claims)


class SlowChunks(ChunkStore):
    """A chunk store that takes its time to answer a claim."""

    def __init__(self, inner: ChunkStore) -> None:
        super().__init__(inner._database, inner._retention_s)
        self.asked, self.answer = threading.Event(), threading.Event()

    def claim(self, *words: Any) -> Claim | None:
        self.asked.set()
        self.answer.wait(30)
        return super().claim(*words)


def held(deployment: Deployment, job_id: str, chunks: ChunkStore) -> tuple[Leases, Hold]:
    claim = chunks.claim(job_id, 0, "w1", 30, 2)
    assert claim is not None
    worker = Worker("w1", "small", "1", "", "cpu", None)
    leases = Leases(with_chunks(deployment.services.store, chunks), worker, 30, lambda: None)
    return leases, leases.take(claim)


def test_a_lost_chunk_is_cleared_even_if_the_database_is_away(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(2)
    inner = deployment.services.store.chunks
    leases, hold = held(deployment, job_id, ForgetfulChunks(inner._database, inner._retention_s))
    deployment.set_chunk(job_id, **LOST)
    with pytest.raises(DatabaseUnavailable):
        leases.renew()
    assert hold.lost
    leases.drop(hold)
    leases.renew()
    assert deployment.chunk(job_id).suspicions == 0
    leases.renew()
    deployment.set_chunk(job_id, suspicions=1)
    leases.renew()
    assert deployment.chunk(job_id).suspicions == 1, "cleared once"


def test_a_chunk_that_is_given_back_stays_suspicious(deploy: Deploy) -> None:
    """Its lease was renewed just when it was handed back; the death it is suspected of was another one."""
    deployment = deploy()
    job_id = deployment.pictures(2)
    chunks = deployment.services.store.chunks
    leases, hold = held(deployment, job_id, chunks)
    deployment.set_chunk(job_id, suspicions=1)
    hold.ending = True
    assert chunks.hand_back(hold.claim)
    leases.renew()
    assert deployment.chunk(job_id).suspicions == 1
    assert not hold.lost


def test_a_chunk_found_lost_when_it_is_recorded_is_cleared(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(2)
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        thread = in_thread(lambda: pipeline.run_chunk(job_id, 0))
        wait_until(lambda: pipeline._batcher._running)
        deployment.set_chunk(job_id, **LOST)
        deployment.captioner.gate.set()
        thread.join(20)
        wait_until(lambda: deployment.chunk(job_id).suspicions == 0)
    assert deployment.job(job_id).counts.succeeded == 0


def test_a_chunk_whose_claim_is_answered_after_the_stop_is_still_captioned(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(3)
    chunks = SlowChunks(deployment.services.store.chunks)
    with deployment.pipeline(store=with_chunks(deployment.services.store, chunks)) as pipeline:
        run = in_thread(lambda: pipeline.run_chunk(job_id, 0))
        assert chunks.asked.wait(10)
        stop = in_thread(lambda: pipeline.stop(20))
        stop.join(0.3)
        assert stop.is_alive(), "the stop waits for the claim"
        chunks.answer.set()
        stop.join(30)
        run.join(10)
    assert deployment.job(job_id).counts.succeeded == 3
