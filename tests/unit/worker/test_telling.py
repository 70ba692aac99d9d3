"""What a worker counts and logs of its work: every outcome, and nothing that is private."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from jobs.meters import Exposition
from jobs.metrics import WORKER
from tests.captioners import Behaviour, colour_png
from tests.scrapes import samples
from tests.unit.worker.conftest import Deployment


def _counted() -> dict[tuple[str, ...], float]:
    return samples(Exposition([WORKER]).render()[0].decode())


def test_outcomes_stages_and_batches_are_counted(deploy: Callable[..., Deployment]) -> None:
    deployment, before = deploy(), _counted()
    good = [colour_png(number) for number in range(5)]
    job_id = deployment.submit([*good, b"no image", None])
    with deployment.pipeline() as pipeline:
        pipeline.run_chunk(job_id, 0)
        again = deployment.submit(good)
        pipeline.run_chunk(again, 0)
        working = _counted()
    after = _counted()

    def grew(*sample: str) -> float:
        return after[sample] - before.get(sample, 0)

    assert grew("captionfleet_worker_images_total", "succeeded") == 10
    assert grew("captionfleet_worker_images_total", "failed") == 2
    assert grew("captionfleet_worker_failures_total", "unsupported_format") == 1
    assert grew("captionfleet_worker_failures_total", "object_not_found") == 1
    assert grew("captionfleet_worker_cache_lookups_total", "hit") == 5
    assert grew("captionfleet_worker_batch_images_sum") == 5
    assert grew("captionfleet_worker_batch_places_total") >= 5
    assert grew("captionfleet_worker_decode_starts_total") >= 1
    for stage in ("fetch", "decode", "wait", "caption", "record"):
        assert grew("captionfleet_worker_stage_seconds_total", stage) > 0
        place = ("captionfleet_worker_stage_places", stage)
        assert working[place] > before.get(place, 0)
        # What ended has no places any more.
        assert grew("captionfleet_worker_stage_places", stage) == 0
    assert grew("captionfleet_worker_chunks_in_hand") == 0


def test_no_log_line_has_a_caption_or_bytes_of_an_image(
    deploy: Callable[..., Deployment], caplog: pytest.LogCaptureFixture
) -> None:
    deployment = deploy()
    caplog.set_level(logging.DEBUG)
    images = [colour_png(1), colour_png(2, Behaviour.FAIL), b"\xff\xd8\xff private bytes"]
    job_id = deployment.submit(images)
    with deployment.pipeline() as pipeline:
        pipeline.run_chunk(job_id, 0)
    captions = [item.caption for item in deployment.items(job_id) if item.caption]
    assert captions
    assert caplog.records
    for private in (*captions, "private bytes", repr(images[0])[4:40]):
        assert private not in caplog.text
