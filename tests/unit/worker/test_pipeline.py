"""Chunks through the pipeline over a real store: what is recorded, released, postponed and handed back."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from jobs.errors import DatabaseUnavailable, StorageUnavailable
from jobs.objects.sources import Sources
from jobs.queue import queue_name
from jobs.records import CaptionOptions
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.chunks import ChunkStore, Recorded
from jobs.tracing import start_tracing, stop_tracing
from tests.captioners import Behaviour, colour_png
from tests.collectors import run_collector
from tests.processes import wait_until
from tests.unit.worker.conftest import Deployment, in_thread
from worker.child import WorkerProcess
from worker.leases import PERIOD_S
from worker.orders import Orders
from worker.pipeline import Pipeline

Deploy = Callable[..., Deployment]


class FlakySources(Sources):
    """Fails for the chosen object keys, a number of times each."""

    def __init__(self, inner: Sources, failures: dict[str, int]) -> None:
        self._inner = inner
        self._failures = Counter(failures)

    def fetch(self, source: str, object_key: str | None) -> bytes:
        if self._failures[object_key or ""] > 0:
            self._failures[object_key or ""] -= 1
            raise StorageUnavailable("S3 does not answer: test")
        return self._inner.fetch(source, object_key)


class FlakyChunks(ChunkStore):
    """A chunk store whose recordings fail as told: an error to raise per call, or with one chunk in them."""

    def __init__(
        self, inner: ChunkStore, errors: list[Exception], refused: tuple[str, int] | None = None
    ) -> None:
        super().__init__(inner._database, inner._retention_s)
        self.errors = errors
        self.refused = refused
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def record(self, results: Any) -> Recorded:
        self.calls.append(len(results))
        assert self.gate.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        if any((result.claim.job_id, result.claim.number) == self.refused for result in results):
            raise ValueError("refused")
        return super().record(results)


def with_chunks(store: Store, chunks: ChunkStore) -> Store:
    copy = object.__new__(Store)
    copy.__dict__.update(store.__dict__, chunks=chunks)
    return copy


def run_together(
    deployment: Deployment,
    pipeline: Pipeline,
    threads: ThreadPoolExecutor,
    chunks: list[tuple[str, int]],
    images: int,
) -> None:
    """Run chunks so that all their images are decoded before the first of them is captioned."""
    first = deployment.submit([colour_png(60_000)])
    deployment.captioner.gate.clear()
    runs = [threads.submit(pipeline.run_chunk, first, 0)]
    wait_until(lambda: pipeline._batcher._running)
    runs += [threads.submit(pipeline.run_chunk, *chunk) for chunk in chunks]
    wait_until(lambda: pipeline._batcher._bulk.count == images)
    deployment.captioner.gate.set()
    assert all(run.result(20) for run in runs)


def record_together(deployment: Deployment, chunks: FlakyChunks, job_id: str, count: int) -> None:
    """Run a job's chunks so that all have finished before any is recorded: another job's holds them up."""
    first = deployment.submit([colour_png(60_000)])
    store = with_chunks(deployment.services.store, chunks)
    chunks.gate.clear()
    with ThreadPoolExecutor(count + 1) as threads, deployment.pipeline(store=store) as pipeline:
        runs = [threads.submit(pipeline.run_chunk, first, 0)]
        wait_until(lambda: chunks.calls == [1])
        runs += [threads.submit(pipeline.run_chunk, job_id, number) for number in range(count)]
        wait_until(lambda: len(pipeline._recorder._waiting) == count)
        chunks.gate.set()
        assert all(run.result(20) for run in runs)


def test_every_image_ends_with_a_caption_or_its_own_error(deploy: Deploy) -> None:
    deployment = deploy()
    good = colour_png(1)
    images = [good, None, b"not an image", colour_png(3, Behaviour.FAIL), good[: len(good) // 2], b"", good]
    job_id = deployment.submit(images)
    with deployment.pipeline() as pipeline:
        assert pipeline.run_chunk(job_id, 0)
    job, items = deployment.job(job_id), deployment.items(job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 2, 5)
    assert [item.error.code if item.error else None for item in items] == [
        None,
        "object_not_found",
        "unsupported_format",
        "caption_failed",
        "image_corrupt",
        "unsupported_format",
        None,
    ]
    assert (items[0].caption, items[0].score, items[0].model) == ("picture 1", -0.5, "colours-1")
    assert (items[0].width, items[0].height, items[0].sha256) == (40, 30, sha256(good).hexdigest())
    assert items[0].attempts == 1


def test_several_captions_an_image(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(2, options=CaptionOptions(num_captions=3, num_beams=3))
    with deployment.pipeline() as pipeline:
        pipeline.run_chunk(job_id, 0)
    item = deployment.items(job_id)[1]
    assert (item.caption, [other.score for other in item.alternatives]) == ("picture 1", [-1.5, -2.5])


def test_options_that_the_model_cannot_fail_every_image_with_the_reason(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(2, options=CaptionOptions(num_captions=5, num_beams=5))
    with deployment.pipeline() as pipeline:
        pipeline.run_chunk(job_id, 0)
    errors = [item.error for item in deployment.items(job_id)]
    assert [error.code for error in errors if error] == ["caption_failed"] * 2
    assert errors[0] is not None
    assert "num_captions must be a whole number from 1 to 3" in errors[0].message


def test_chunks_of_several_jobs_share_batches(deploy: Deploy) -> None:
    deployment = deploy(batch_size=64)
    pictures = [range(40), range(100, 140)]
    jobs = [deployment.submit([colour_png(n) for n in numbers], chunk=16) for numbers in pictures]
    with ThreadPoolExecutor(7) as threads, deployment.pipeline() as pipeline:
        run_together(deployment, pipeline, threads, [(job_id, n) for job_id in jobs for n in range(3)], 80)
    assert [len(batch) for batch in deployment.captioner.batches] == [1, 64, 16]
    for job_id, numbers in zip(jobs, pictures, strict=True):
        assert deployment.job(job_id).counts.succeeded == 40
        assert [item.caption for item in deployment.items(job_id)] == [f"picture {n}" for n in numbers]


def test_released_chunks_are_announced_after_the_commit(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(40, chunk=2)
    bulk = queue_name("small", fast=False)
    announced = deployment.services.queue.depth(bulk)
    assert announced == 16
    with deployment.pipeline() as pipeline:
        pipeline.run_chunk(job_id, 0)
    assert deployment.services.queue.depth(bulk) == 17


def test_nothing_to_claim_is_nothing_to_do(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(2)
    with deployment.pipeline() as pipeline:
        assert pipeline.run_chunk(job_id, 0)
        assert pipeline.run_chunk(job_id, 0), "a repeated message"
        assert pipeline.run_chunk("job_unknown", 0)
    assert [sorted(batch) for batch in deployment.captioner.batches] == [[0, 1]]


def test_a_storage_failure_that_passes_costs_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(4)
    sources = FlakySources(deployment.services.sources, {f"jobs/{job_id}/0/2": 1})
    with deployment.pipeline(sources=sources) as pipeline:
        pipeline.run_chunk(job_id, 0)
    assert deployment.job(job_id).counts.succeeded == 4
    assert deployment.chunk(job_id).failures == 0


def test_a_storage_failure_postpones_the_whole_chunk(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(4)
    sources = FlakySources(deployment.services.sources, {f"jobs/{job_id}/0/2": 2})
    with deployment.pipeline(sources=sources) as pipeline:
        pipeline.run_chunk(job_id, 0)
        chunk = deployment.chunk(job_id)
        assert (chunk.state, chunk.failures, chunk.suspicions) == ("open", 1, 0)
        assert chunk.not_before is not None
        assert deployment.job(job_id).counts.succeeded == 0
        assert pipeline.run_chunk(job_id, 0), "before its time there is nothing to claim"
        assert deployment.chunk(job_id).state == "open"
        wait_until(lambda: deployment.services.store.sweeps.due_retries())
        pipeline.run_chunk(job_id, 0)
    assert deployment.job(job_id).counts.succeeded == 4


def test_after_the_last_failure_only_the_unreadable_images_fail(deploy: Deploy) -> None:
    deployment = deploy(max_failures=3)
    job_id = deployment.pictures(4)
    deployment.set_chunk(job_id, failures=2)
    sources = FlakySources(deployment.services.sources, {f"jobs/{job_id}/0/2": 100})
    with deployment.pipeline(sources=sources) as pipeline:
        pipeline.run_chunk(job_id, 0)
    job, items = deployment.job(job_id), deployment.items(job_id)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("completed", 3, 1)
    assert items[2].error is not None
    assert items[2].error.code == "download_failed"


def test_an_unexpected_failure_is_tried_again_then_final(
    deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a result that the database refuses."""
    deployment = deploy(max_failures=2)
    job_id = deployment.pictures(2)
    store = deployment.services.store
    chunks = FlakyChunks(store.chunks, [ValueError("refused"), ValueError("refused")])
    with deployment.pipeline(store=with_chunks(store, chunks)) as pipeline:
        pipeline.run_chunk(job_id, 0)
        assert deployment.chunk(job_id).failures == 1
        wait_until(lambda: store.sweeps.due_retries())
        pipeline.run_chunk(job_id, 0)
    errors = [item.error.code for item in deployment.items(job_id) if item.error]
    assert errors == ["caption_failed"] * 2
    assert deployment.job(job_id).status == "completed"


def test_results_wait_for_the_database_and_are_not_made_again(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(3)
    away = DatabaseUnavailable("the database does not answer: test")
    store = deployment.services.store
    chunks = FlakyChunks(store.chunks, [away, away])
    with deployment.pipeline(store=with_chunks(store, chunks)) as pipeline:
        pipeline.run_chunk(job_id, 0)
    assert deployment.job(job_id).counts.succeeded == 3
    assert [sorted(batch) for batch in deployment.captioner.batches] == [[0, 1, 2]]


def test_chunks_that_finish_together_are_recorded_together(deploy: Deploy) -> None:
    deployment = deploy(batch_size=64)
    job_id = deployment.pictures(48, chunk=12)
    chunks = FlakyChunks(deployment.services.store.chunks, [])
    record_together(deployment, chunks, job_id, 4)
    assert chunks.calls == [1, 4]
    assert deployment.job(job_id).status == "completed"


@pytest.mark.parametrize(
    ("error", "named"),
    [(StorageUnavailable("gone"), "storage_unavailable"), (ValueError("odd"), "ValueError")],
)
def test_the_trace_of_a_chunk_that_failed_says_why(deploy: Deploy, error: Exception, named: str) -> None:
    deployment = deploy()
    job_id = deployment.pictures(1)
    chunks = FlakyChunks(deployment.services.store.chunks, [error])
    with run_collector() as collector:
        start_tracing(Settings(otlp_endpoint=collector.url), "tested")
        with deployment.pipeline(store=with_chunks(deployment.services.store, chunks)) as pipeline:
            pipeline.run_chunk(job_id, 0)
        stop_tracing()
    (chunk,) = (span for _, span in collector.received if span.name == "chunk")
    assert (chunk.status.code, chunk.status.message) == (Status.STATUS_CODE_ERROR, named)


def test_one_refused_result_does_not_spoil_the_others(deploy: Deploy) -> None:
    deployment = deploy(batch_size=64)
    job_id = deployment.pictures(40, chunk=20)
    chunks = FlakyChunks(deployment.services.store.chunks, [], refused=(job_id, 0))
    record_together(deployment, chunks, job_id, 2)
    assert chunks.calls == [1, 2, 1, 1]
    assert [deployment.chunk(job_id, number).state for number in range(2)] == ["open", "done"]


def test_a_canceled_job_ends_early_and_nothing_of_it_is_recorded(deploy: Deploy) -> None:
    deployment = deploy(lease_s=1, batch_size=2)
    job_id = deployment.pictures(30)
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        run = in_thread(lambda: pipeline.run_chunk(job_id, 0))
        wait_until(lambda: pipeline._batcher._fast.count)
        deployment.services.store.jobs.cancel("ann", job_id)
        deployment.services.store.sweeps.finish_cancels()
        wait_until(lambda: all(hold.stopped for hold in pipeline._leases.in_hand()), what="the stop")
        deployment.captioner.gate.set()
        run.join(10)
        assert not run.is_alive()
    assert len(deployment.captioner.batches) <= 2, "the images that waited were captioned all the same"
    assert deployment.job(job_id).counts.canceled == 30


def test_leases_in_hand_are_renewed(deploy: Deploy) -> None:
    deployment = deploy(lease_s=1)
    job_id = deployment.pictures(3)
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        run = in_thread(lambda: pipeline.run_chunk(job_id, 0))
        wait_until(lambda: deployment.chunk(job_id).state == "leased")
        first = deployment.chunk(job_id).lease_until
        wait_until(lambda: deployment.chunk(job_id).lease_until > first)
        [worker] = [w for w in deployment.services.store.workers.alive() if w.id == "w1"]
        assert (worker.model, worker.version, worker.device) == ("small", "colours-1", "cpu")
        deployment.captioner.gate.set()
        run.join(10)
    assert deployment.job(job_id).counts.succeeded == 3
    assert [w.id for w in deployment.services.store.workers.alive()] == ["ruler"], "the worker left"


def test_the_register_hears_of_the_first_measured_rate_at_once(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(3)

    def registered() -> float | None:
        workers = deployment.services.store.workers.alive()
        return next((w.images_per_second for w in workers if w.id == "w1"), None)

    with deployment.pipeline() as pipeline:
        wait_until(lambda: "w1" in {w.id for w in deployment.services.store.workers.alive()})
        assert registered() is None
        pipeline.run_chunk(job_id, 0)
        assert wait_until(registered, PERIOD_S - 2)


def test_a_suspicious_chunk_runs_alone(deploy: Deploy) -> None:
    deployment = deploy()
    others = [deployment.pictures(3), deployment.submit([colour_png(50)])]
    suspicious = deployment.submit([colour_png(77)])
    deployment.set_chunk(suspicious, suspicions=2)
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        threads = [in_thread(lambda: pipeline.run_chunk(others[0], 0))]
        wait_until(lambda: deployment.chunk(others[0]).state == "leased")
        threads.append(in_thread(lambda: pipeline.run_chunk(suspicious, 0)))
        wait_until(lambda: deployment.chunk(suspicious).state == "leased")
        threads.append(in_thread(lambda: pipeline.run_chunk(others[1], 0)))
        # While the first chunk runs, the suspicious one must not be marked; the next must not start.
        assert not threading.Event().wait(0.2)
        assert not deployment.chunk(suspicious).alone
        assert deployment.chunk(others[1]).state == "open"
        deployment.captioner.gate.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert deployment.captioner.batches[-2:] == [[77], [50]]
    assert deployment.job(suspicious).counts.succeeded == 1


def test_the_mark_is_there_while_it_runs_alone(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.submit([colour_png(77)])
    deployment.set_chunk(job_id, suspicions=2)
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        run = in_thread(lambda: pipeline.run_chunk(job_id, 0))
        wait_until(lambda: deployment.chunk(job_id).alone)
        deployment.captioner.gate.set()
        run.join(10)
    assert not deployment.chunk(job_id).alone
    assert deployment.chunk(job_id).deaths_alone == 0


def test_sigquit_ends_the_grace_that_sigterm_gave(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(3)
    process = WorkerProcess(Orders(model="small", settings=deployment.services.settings))
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        process._pipeline = pipeline
        threads = [in_thread(lambda: pipeline.run_chunk(job_id, 0))]
        wait_until(lambda: pipeline._batcher._running)
        threads.append(in_thread(lambda: pipeline.stop(300)))
        wait_until(pipeline._stopping.is_set)
        process._on_signal(signal.SIGQUIT)
        wait_until(lambda: deployment.chunk(job_id).state == "open", 20, "the chunk to be handed back")
        deployment.captioner.gate.set()
        for thread in threads:
            thread.join(10)


def test_stopping_hands_back_what_does_not_finish(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.pictures(3)
    queue = queue_name("small", fast=True)
    deployment.services.queue.take([queue], 0)  # type: ignore[attr-defined]
    deployment.captioner.gate.clear()
    with deployment.pipeline() as pipeline:
        run = in_thread(lambda: pipeline.run_chunk(job_id, 0))
        wait_until(lambda: deployment.chunk(job_id).state == "leased")
        stop = in_thread(lambda: pipeline.stop(0.1))
        wait_until(lambda: deployment.chunk(job_id).state == "open")
        assert not pipeline.run_chunk(job_id, 0), "a stopping worker begins nothing"
        deployment.captioner.gate.set()
        stop.join(10)
        run.join(10)
        assert not run.is_alive()
    chunk = deployment.chunk(job_id)
    assert (chunk.state, chunk.suspicions, chunk.failures) == ("open", 0, 0)
    assert deployment.services.queue.depth(queue) == 1, "another worker hears of it at once"
    with replace(deployment, worker_id="w2").pipeline() as other:
        other.run_chunk(job_id, 0)
    assert deployment.job(job_id).counts.succeeded == 3
