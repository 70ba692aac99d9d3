"""The same image under the same model and options is captioned once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from jobs.ids import new_id
from jobs.objects.sources import Sources
from jobs.records import CaptionOptions, JobSpec
from jobs.store.submit import NewItem, NewJob
from jobs.store.uploads import upload_key
from tests.captioners import Behaviour, colour_png
from tests.processes import wait_until
from tests.unit.worker.conftest import OWNER, Deployment

Deploy = Callable[..., Deployment]


def captioned(deployment: Deployment) -> list[int]:
    """The pictures that the captioner has seen."""
    return sorted(number for batch in deployment.captioner.batches for number in batch)


def run(deployment: Deployment, *job_ids: str) -> None:
    with deployment.pipeline() as pipeline:
        for job_id in job_ids:
            assert pipeline.run_chunk(job_id, 0)


def captions(deployment: Deployment, job_id: str) -> list[str | None]:
    return [item.caption for item in deployment.items(job_id)]


def test_a_second_job_of_the_same_images_needs_no_model(deploy: Deploy) -> None:
    deployment = deploy()
    first, second = deployment.pictures(3), deployment.pictures(4)
    run(deployment, first, second)
    assert captioned(deployment) == [0, 1, 2, 3]
    assert captions(deployment, second) == [f"picture {n}" for n in range(4)]
    item = deployment.items(second)[0]
    assert (item.score, item.model, item.width, item.height) == (-0.5, "colours-1", 40, 30)
    assert item.sha256 == sha256(colour_png(0)).hexdigest()


def test_repeated_images_of_one_chunk_are_captioned_once(deploy: Deploy) -> None:
    deployment = deploy()
    job_id = deployment.submit([colour_png(7)] * 8 + [colour_png(8)] * 8)
    deployment.captioner.gate.clear()
    with ThreadPoolExecutor(1) as threads, deployment.pipeline() as pipeline:
        threads.submit(pipeline.run_chunk, job_id, 0)
        batcher = pipeline._batcher
        wait_until(lambda: batcher._running and not any(batcher._fast.coming.values()))
        deployment.captioner.gate.set()
    assert captioned(deployment) == [7, 8]
    assert captions(deployment, job_id) == ["picture 7"] * 8 + ["picture 8"] * 8


@pytest.mark.parametrize("both", [False, True])
def test_a_shared_image_is_given_up_when_the_last_of_its_chunks_stops(deploy: Deploy, both: bool) -> None:
    deployment = deploy()
    busy = deployment.submit([colour_png(60_000)])
    first, second = deployment.submit([colour_png(7)]), deployment.submit([colour_png(7), colour_png(8)])
    deployment.captioner.gate.clear()
    with ThreadPoolExecutor(3) as threads, deployment.pipeline() as pipeline:
        batcher = pipeline._batcher
        threads.submit(pipeline.run_chunk, busy, 0)
        wait_until(lambda: batcher._running)
        threads.submit(pipeline.run_chunk, first, 0)
        wait_until(lambda: batcher._fast.count == 1)
        run = threads.submit(pipeline.run_chunk, second, 0)
        wait_until(lambda: batcher._fast.count == 2 and not batcher._fast.coming)
        for hold in pipeline._leases.in_hand():
            if hold.claim.job_id == first or (both and hold.claim.job_id == second):
                hold.stop()
        deployment.captioner.gate.set()
        assert run.result(20)
    assert captioned(deployment) == ([60_000] if both else [7, 8, 60_000])
    assert deployment.chunk(second).state == ("open" if both else "done")


def test_an_upload_that_is_known_is_not_even_fetched(deploy: Deploy) -> None:
    deployment = deploy()
    run(deployment, deployment.pictures(1))
    job_id = new_id("job")
    digest = sha256(colour_png(0)).hexdigest()
    gone = NewItem("a.png", "a.png", "upload", "jobs/gone/0/0", "image/png", digest)
    deployment.services.intake.submit(NewJob(job_id, OWNER, "small", "upload", JobSpec()), [gone])
    run(deployment, job_id)
    assert captions(deployment, job_id) == ["picture 0"]


def test_other_options_models_and_owners_have_captions_of_their_own(deploy: Deploy) -> None:
    deployment = deploy()
    run(deployment, deployment.pictures(1))
    run(deployment, deployment.pictures(1, options=CaptionOptions(num_captions=2, num_beams=2)))
    deployment.captioner.digest = "1" * 64
    run(deployment, deployment.pictures(1))
    job_id = deployment.pictures(1)
    deployment.services.store.jobs.delete(OWNER, job_id)
    assert captioned(deployment) == [0, 0, 0]


def test_without_the_cache_every_image_is_captioned(deploy: Deploy) -> None:
    deployment = deploy()
    options = CaptionOptions(use_cache=False)
    run(deployment, deployment.pictures(1, options=options), deployment.pictures(1, options=options))
    run(deployment, deployment.pictures(1))
    assert captioned(deployment) == [0, 0, 0]


def test_errors_are_not_remembered(deploy: Deploy) -> None:
    deployment = deploy()
    images = [colour_png(1, Behaviour.EMPTY), b"torn"]
    first, second = deployment.submit(images), deployment.submit(images)
    run(deployment, first, second)
    assert captioned(deployment) == [1, 1]
    assert deployment.job(second).counts.failed == 2


class Replaceable(Sources):
    """One address, under which other bytes lie from time to time."""

    def __init__(self) -> None:
        self.body = b""

    def fetch(self, source: str, object_key: str | None) -> bytes:
        return self.body


@pytest.mark.parametrize(("source", "key"), [("s3://b/a.png", None), ("upload", upload_key("upload_1", 0))])
def test_what_others_can_replace_is_looked_at_again(deploy: Deploy, source: str, key: str | None) -> None:
    """An image fails; when its job is tried again, another one lies there, and then the first one again."""
    deployment, sources = deploy(), Replaceable()
    first, second = new_id("job"), new_id("job")

    def submit(job_id: str) -> None:
        item = NewItem("a.png", "a.png", source, key)
        deployment.services.intake.submit(NewJob(job_id, OWNER, "small", "s3", JobSpec()), [item])

    with deployment.pipeline(sources=sources) as pipeline:
        submit(first)
        sources.body = failing = colour_png(1, Behaviour.EMPTY)
        pipeline.run_chunk(first, 0)
        assert deployment.items(first)[0].sha256 == sha256(failing).hexdigest()
        [message] = deployment.services.store.jobs.retry(OWNER, first)
        sources.body = colour_png(2)
        pipeline.run_chunk(first, message.chunk)
        submit(second)
        sources.body = failing
        pipeline.run_chunk(second, 0)
    item = deployment.items(first)[0]
    assert (item.caption, item.sha256) == ("picture 2", sha256(colour_png(2)).hexdigest())
    assert captions(deployment, second) == [None], "the caption of the bytes that lay there meanwhile"
