"""The life of jobs as a small model, and the real store driven beside it, step by random step.

The model knows nothing of SQL, windows of time or databases: who holds which chunk, what each image came to,
and what that makes of the job. After every step everything a client could read must be what the model says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select, update

from jobs.errors import ItemCode, ItemError, RequestError
from jobs.ids import new_id
from jobs.store import Store
from jobs.store.bulk import USUAL_CHUNK
from jobs.store.chunks import ChunkResult, Claim, ItemResult
from jobs.store.jobs import RETRY_CHUNK
from jobs.store.sweeps import CRASH, LOSS, MOST_BLAME, SPLIT_AFTER
from jobs.tables import ChunkRow, ItemRow, JobRow
from tests.contract.stores import LONG_AGO, age_leases, new_job

ACTIVE, OVER = ("queued", "running"), ("completed", "canceled")
INDEX = st.integers(0, 1_000)


@dataclass
class Chunk:
    """Positions from ``first`` to ``last``, and who has them in hand."""

    first: int
    last: int
    suspicions: int = 0
    blame: int = 0
    alone: bool = False
    done: bool = False
    holder: Claim | None = None


@dataclass
class Job:
    """What a job must look like from outside, and how its work is cut."""

    id: str
    items: list[str]
    captions: dict[int, str] = field(default_factory=dict)
    status: str = "queued"
    chunks: list[Chunk] = field(default_factory=list)

    def cut(self, positions: list[int], size: int) -> None:
        """Make the next round's chunks."""
        groups = (positions[start : start + size] for start in range(0, len(positions), size))
        self.chunks += [Chunk(group[0], group[-1]) for group in groups]

    def waiting(self, chunk: Chunk) -> list[int]:
        """Positions of a chunk that wait for a caption."""
        return [n for n in range(chunk.first, chunk.last + 1) if self.items[n] == "queued"]

    def settle(self) -> None:
        """Complete the job when nothing is left of it."""
        if self.status in ACTIVE and "queued" not in self.items:
            self.status = "completed"

    def shown(self) -> list[str]:
        """Each item's status as clients read it."""
        held = {n for chunk in self.chunks if chunk.holder for n in range(chunk.first, chunk.last + 1)}
        queued = "canceled" if self.status in ("canceling", "canceled") else "queued"
        return [
            status if status != "queued" else "running" if n in held and queued == "queued" else queued
            for n, status in enumerate(self.items)
        ]


class LifeCycle(RuleBasedStateMachine):
    """Submit, claim, record, lose, hand back, cancel, retry, delete and expire, in any order."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.gone: list[str] = []
        self.claims: list[Claim] = []
        self.texts = 0
        # Jobs of earlier examples take nothing of this one's share.
        self.owner = new_id("owner")

    @initialize(images=st.sampled_from([1, 3, 40]))
    def first(self, images: int) -> None:
        self.submit(images)

    @precondition(lambda self: len(self.jobs) < 4)
    @rule(images=st.sampled_from([1, 3, 40]))
    def submit(self, images: int) -> None:
        job = Job(new_job(self.store, images, owner=self.owner), ["queued"] * images)
        job.cut(list(range(images)), USUAL_CHUNK)
        self.jobs[job.id] = job

    @precondition(lambda self: self.jobs)
    @rule(which=INDEX, number=st.integers(0, 50))
    def claim(self, which: int, number: int) -> None:
        job = self._job(which)
        number %= len(job.chunks) + 1
        chunk = job.chunks[number] if number < len(job.chunks) else None
        taken = self.store.chunks.claim(job.id, number, "w1", 30, SPLIT_AFTER)
        free = chunk is not None and not chunk.done and chunk.holder is None and job.status in ACTIVE
        assert (taken is not None) == (free and number < self._released(job)), (taken, job)
        if taken is None or chunk is None:
            return
        assert [item.position for item in taken.items] == job.waiting(chunk)
        assert taken.alone == (chunk.suspicions >= SPLIT_AFTER)
        job.status, chunk.holder = "running", taken
        chunk.alone = taken.alone and self.store.chunks.mark_alone(taken)
        self.claims.append(taken)

    @precondition(lambda self: self.claims)
    @rule(which=INDEX, failing=st.sets(st.integers(0, 40), max_size=3))
    def record(self, which: int, failing: set[int]) -> None:
        """Any worker, also one that lost its lease long ago, records what it made of its chunk."""
        claim = self._claim(which)
        self.texts += 1
        text, error = f"caption {self.texts}", ItemError(ItemCode.CAPTION_FAILED, "no")
        results = [
            ItemResult(item.position, error=error)
            if item.position in failing
            else ItemResult(item.position, ((text, -0.5),), model="m")
            for item in claim.items
        ]
        recorded = self.store.chunks.record([ChunkResult(claim, results)])
        job, chunk = self._held(claim)
        current = job is not None and chunk is not None and job.status in ACTIVE
        assert bool(recorded.closed) == current
        if job is None or chunk is None or not current:
            return
        for result in results:
            job.items[result.position] = "failed" if result.error else "succeeded"
            job.captions.pop(result.position, None)
            if not result.error:
                job.captions[result.position] = text
        chunk.done, chunk.holder = True, None
        job.settle()

    @precondition(lambda self: self.claims)
    @rule(which=INDEX, later=st.booleans())
    def give_back(self, which: int, later: bool) -> None:
        """A worker shuts down, or cannot go on for now."""
        claim = self._claim(which)
        chunks = self.store.chunks
        done = chunks.postpone(claim, -1) if later else chunks.hand_back(claim)
        _, chunk = self._held(claim)
        assert done == (chunk is not None)
        if chunk is not None:
            chunk.holder, chunk.alone = None, False

    @precondition(lambda self: self.claims)
    @rule()
    def renew(self) -> None:
        kept = self.store.chunks.renew("w1", 30, self.claims)
        held = [claim for claim in self.claims if self._held(claim)[1] is not None]
        assert kept == {(claim.job_id, claim.number, claim.attempt) for claim in held}

    @precondition(lambda self: self.jobs)
    @rule(which=INDEX)
    def lose_leases(self, which: int) -> None:
        """Every worker that holds chunks of one job dies."""
        job = self._job(which)
        age_leases(self.store, job.id)
        self.store.sweeps.recover_leases()
        for chunk in [chunk for chunk in job.chunks if chunk.holder]:
            self._lost(job, chunk, LOSS)
        job.settle()

    @rule()
    def crash(self) -> None:
        """The worker of all these chunks crashes, and its parent sees it."""
        self.store.sweeps.recover_worker("w1", crashed=True)
        for job in self.jobs.values():
            for chunk in [chunk for chunk in job.chunks if chunk.holder]:
                self._lost(job, chunk, CRASH)
            job.settle()

    def _lost(self, job: Job, chunk: Chunk, blame: int) -> None:
        chunk.holder = None
        chunk.suspicions += not chunk.alone
        chunk.blame += blame * chunk.alone
        chunk.alone = False
        if job.status not in ACTIVE:
            return
        if chunk.blame >= MOST_BLAME:
            chunk.done = True
            for position in job.waiting(chunk):
                job.items[position] = "failed"
        elif chunk.suspicions >= SPLIT_AFTER and chunk.last > chunk.first:
            chunk.done = True
            job.chunks += [Chunk(n, n, suspicions=SPLIT_AFTER) for n in job.waiting(chunk)]

    @precondition(lambda self: self.jobs)
    @rule(which=INDEX)
    def cancel(self, which: int) -> None:
        job = self._job(which)
        if job.status == "completed":
            self._conflicts(lambda: self.store.jobs.cancel(self.owner, job.id))
            return
        self.store.jobs.cancel(self.owner, job.id)
        if job.status in ACTIVE:
            job.status = "canceling"

    @rule()
    def finish_cancels(self) -> None:
        self.store.sweeps.finish_cancels()
        for job in self.jobs.values():
            if job.status == "canceling":
                job.status = "canceled"
                job.items = ["canceled" if status == "queued" else status for status in job.items]
                self._close(job)

    @precondition(lambda self: self.jobs)
    @rule(which=INDEX)
    def retry(self, which: int) -> None:
        job = self._job(which)
        again = [n for n, status in enumerate(job.items) if status in ("failed", "canceled")]
        if job.status not in OVER or not again:
            self._conflicts(lambda: self.store.jobs.retry(self.owner, job.id))
            return
        self.store.jobs.retry(self.owner, job.id)
        self._close(job)
        job.status = "queued"
        for position in again:
            job.items[position] = "queued"
        job.cut(again, RETRY_CHUNK)

    @precondition(lambda self: self.jobs)
    @rule(which=INDEX)
    def delete(self, which: int) -> None:
        job = self._job(which)
        self.store.jobs.delete(self.owner, job.id)
        self._gone(job)

    @precondition(lambda self: self.jobs)
    @rule(which=INDEX)
    def expire(self, which: int) -> None:
        """A month passes over one job; what still runs never expires."""
        job = self._job(which)
        with self.store.database.write() as connection:
            late = update(JobRow).where(JobRow.id == job.id, JobRow.expires_at.is_not(None))
            connection.execute(late.values(expires_at=LONG_AGO))
        self.store.retention.expire_jobs()
        if job.status in OVER:
            self._gone(job)

    @precondition(lambda self: self.gone)
    @rule()
    def purge(self) -> None:
        """What is deleted leaves no row."""
        while deleted := self.store.retention.deleted_jobs():
            for job_id in deleted:
                while self.store.retention.delete_rows(job_id):
                    pass
        with self.store.database.read() as connection:
            for table in (JobRow.id, ItemRow.job_id, ChunkRow.job_id):
                left = select(func.count()).where(table.in_(self.gone))
                assert connection.execute(left).scalar_one() == 0
        self.gone.clear()

    @invariant()
    def everything_reads_as_the_model_says(self) -> None:
        for job in self.jobs.values():
            seen, _ = self.store.jobs.get(self.owner, job.id)
            shown = job.shown()
            counts = Counter(shown)
            assert seen.status == job.status, (seen, job)
            assert seen.counts.model_dump() == {
                "total": len(shown),
                **{name: counts[name] for name in ("queued", "running", "succeeded", "failed", "canceled")},
            }, (seen, job)
            items = [item for page in self.store.jobs.results(self.owner, job.id) for item in page]
            assert [item.status for item in items] == shown
            written = {item.position: item.caption for item in items if item.status == "succeeded"}
            assert written == job.captions

    @invariant()
    def what_waits_can_be_taken_or_is_in_hand(self) -> None:
        """Otherwise nothing would ever move the job again."""
        for job in self.jobs.values():
            if job.status in ACTIVE:
                assert not all(chunk.done for chunk in job.chunks[: self._released(job)]), job

    @invariant()
    def what_is_gone_is_not_found(self) -> None:
        for job_id in self.gone:
            with pytest.raises(RequestError, match="no job"):
                self.store.jobs.get(self.owner, job_id)

    def _released(self, job: Job) -> int:
        with self.store.database.read() as connection:
            return connection.execute(select(JobRow.released).where(JobRow.id == job.id)).scalar_one()

    def _job(self, which: int) -> Job:
        return list(self.jobs.values())[which % len(self.jobs)]

    def _claim(self, which: int) -> Claim:
        """One of the last claims made, held or lost."""
        recent = self.claims[-12:]
        return recent[which % len(recent)]

    def _held(self, claim: Claim) -> tuple[Job | None, Chunk | None]:
        """The job and chunk of a claim, the latter only while the claim holds it."""
        job = self.jobs.get(claim.job_id)
        if job is None:
            return None, None
        return job, next((chunk for chunk in job.chunks if chunk.holder is claim), None)

    def _gone(self, job: Job) -> None:
        del self.jobs[job.id]
        self.gone.append(job.id)
        self.claims = [claim for claim in self.claims if claim.job_id != job.id]

    def _close(self, job: Job) -> None:
        for chunk in job.chunks:
            chunk.done, chunk.holder = True, None

    def _conflicts(self, call: Callable[[], object]) -> None:
        with pytest.raises(RequestError) as refusal:
            call()
        assert refusal.value.code == "job_state_conflict"
