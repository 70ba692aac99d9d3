"""The batcher: who shares a batch, who goes first, and that every image gets an answer whatever fails."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ItemError
from model.captioner import Caption, DecodingOptions, Pixels
from model.errors import ModelOutOfMemory
from tests.captioners import Behaviour, ColourCaptioner, pixels
from tests.processes import wait_until
from worker.batcher import BULK_PATIENCE_S, Batcher
from worker.forward import Entry, Forward
from worker.stopping import Stopped
from worker.watchdog import Watchdog

ROOT = Path(__file__).parents[3]
GREEDY = DecodingOptions(num_beams=1, num_captions=1)
BEAMS = DecodingOptions(num_beams=3, num_captions=1)


@pytest.fixture
def captioner() -> ColourCaptioner:
    return ColourCaptioner()


@pytest.fixture
def batcher(captioner: ColourCaptioner) -> Iterator[Batcher]:
    running = Batcher(captioner, batch_size=8, forward_limit_s=60)
    yield running
    captioner.gate.set()
    running.close()


def submit(
    batcher: Batcher,
    number: int,
    behaviour: Behaviour = Behaviour.CAPTION,
    options: DecodingOptions = GREEDY,
    *,
    fast: bool = False,
) -> Future[list[Caption]]:
    return batcher.submit(pixels(number, behaviour), options, fast=fast)


def hold(batcher: Batcher, captioner: ColourCaptioner) -> Future[list[Caption]]:
    """Keep the captioner busy with picture 999 until its gate opens."""
    captioner.gate.clear()
    first = submit(batcher, 999)
    wait_until(first.running, what="the first batch")
    return first


def text(future: Future[list[Caption]]) -> str:
    return future.result(10)[0].text


def code(future: Future[list[Caption]]) -> str:
    error = future.exception(10)
    assert isinstance(error, ItemError), error
    return error.code


def test_images_that_wait_share_a_batch(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    futures = [submit(batcher, number) for number in range(10)]
    captioner.gate.set()
    assert [text(future) for future in futures] == [f"picture {number}" for number in range(10)]
    assert captioner.batches == [[999], [*range(8)], [8, 9]]


def test_other_options_are_another_batch(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    futures = [submit(batcher, n, options=BEAMS if n % 2 else GREEDY) for n in range(6)]
    captioner.gate.set()
    assert [text(future) for future in futures] == [f"picture {number}" for number in range(6)]
    assert captioner.batches == [[999], [0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(("small", "filled"), [(1, 1), (2, 0), (5, 0)])
def test_small_jobs_go_first_and_large_ones_fill_a_quarter_of_their_batch(
    batcher: Batcher, captioner: ColourCaptioner, small: int, filled: int
) -> None:
    hold(batcher, captioner)
    bulk = [submit(batcher, number) for number in range(8 + filled)]
    fast = [submit(batcher, 100 + number, fast=True) for number in range(small)]
    captioner.gate.set()
    for future in (*bulk, *fast):
        future.result(10)
    first = [*range(100, 100 + small), *range(filled)]
    assert captioner.batches == [[999], first, [*range(filled, filled + 8)]]


def test_one_image_on_an_idle_system_is_not_delayed(batcher: Batcher) -> None:
    took = []
    for number in range(5):
        started = time.monotonic()
        submit(batcher, number).result(10)
        took.append(time.monotonic() - started)
    assert min(took) < BULK_PATIENCE_S / 2, "a busy machine delays some, not all"


def test_a_batch_waits_for_images_on_their_way(batcher: Batcher, captioner: ColourCaptioner) -> None:
    batcher._bulk.patience_s = 60
    batcher.expect(GREEDY, 3, fast=False)
    futures = []
    for number in range(3):
        futures.append(submit(batcher, number))
        batcher.expect(GREEDY, -1, fast=False)
        time.sleep(0.01)
    assert [text(future) for future in futures] == ["picture 0", "picture 1", "picture 2"]
    assert captioner.batches == [[0, 1, 2]]


def test_but_not_for_ever(batcher: Batcher) -> None:
    batcher.expect(GREEDY, 1, fast=False)
    assert text(submit(batcher, 5)) == "picture 5"


def test_a_full_queue_makes_submitters_wait(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    done = threading.Event()

    def submit_many() -> None:
        for number in range(17):
            submit(batcher, number)
        done.set()

    thread = threading.Thread(target=submit_many)
    thread.start()
    # A small job is not kept out by the large one that fills the queue.
    wait_until(lambda: batcher._bulk.count == 16)
    small = submit(batcher, 100, fast=True)
    assert not done.wait(0.05)
    captioner.gate.set()
    assert text(small) == "picture 100"
    assert done.wait(10)
    thread.join()


def test_only_the_bad_images_of_a_batch_fail(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    bad = {
        2: Behaviour.FAIL,
        3: Behaviour.EMPTY,
        5: Behaviour.FAIL,
        6: Behaviour.LOOP,
        7: Behaviour.NOT_A_NUMBER,
    }
    futures = [submit(batcher, n, bad.get(n, Behaviour.CAPTION)) for n in range(8)]
    captioner.gate.set()
    for number, future in enumerate(futures):
        if number in bad:
            assert code(future) == "caption_failed"
        else:
            assert text(future) == f"picture {number}"


def test_out_of_memory_halves_the_batch_and_is_remembered(
    batcher: Batcher, captioner: ColourCaptioner
) -> None:
    captioner.memory = 3
    hold(batcher, captioner)
    futures = [submit(batcher, number) for number in range(16)]
    captioner.gate.set()
    assert [text(future) for future in futures] == [f"picture {number}" for number in range(16)]
    sizes = [len(batch) for batch in captioner.batches]
    assert sizes[:2] == [1, 8]
    assert [size for size in sizes if size > 3] == [8, 4], "a batch that did not fit was tried again"
    assert sizes.count(2) == 8


def test_memory_that_does_not_suffice_for_one_image(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    futures = [submit(batcher, 0), submit(batcher, 1, Behaviour.OUT_OF_MEMORY), submit(batcher, 2)]
    captioner.gate.set()
    assert text(futures[0]) == "picture 0"
    assert code(futures[1]) == "model_out_of_memory"
    assert text(futures[2]) == "picture 2"


class Activations:
    """What a forward pass has on the device."""


class Hoarder(ColourCaptioner):
    """Fails with activations in its frame; each batch notes whether an earlier one's are still there."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error
        self.held: list[bool] = []
        self.before: weakref.ref[Activations] | None = None

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        self.held.append(self.before is not None and self.before() is not None)
        if len(images) == 1:
            return super().caption(images, options)
        activations = Activations()
        self.before = weakref.ref(activations)
        try:
            raise ValueError("the device's own error")
        except ValueError as error:
            raise self.error("the batch failed") from error


@pytest.mark.parametrize("error", [ModelOutOfMemory, RuntimeError])
def test_a_failed_batch_is_gone_from_memory_before_its_halves_are_tried(error: type[Exception]) -> None:
    captioner = Hoarder(error)
    watchdog = Watchdog(60)
    forward = Forward(captioner, watchdog, batch_size=4)
    entries = [Entry(pixels(number), GREEDY, 0.0) for number in range(4)]
    forward.run(entries)
    watchdog.close()
    assert [text(entry.future) for entry in entries] == [f"picture {number}" for number in range(4)]
    assert len(captioner.held) > 4
    assert not any(captioner.held)


def test_a_wrong_shape_is_one_images_trouble(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    odd = batcher.submit(pixels(1)[:8], GREEDY, fast=False)
    good = submit(batcher, 2)
    captioner.gate.set()
    assert text(good) == "picture 2"
    # Alone it is a batch of its own shape, which this captioner does not mind.
    assert text(odd) == "picture 1"


def test_canceled_images_cost_nothing(batcher: Batcher, captioner: ColourCaptioner) -> None:
    hold(batcher, captioner)
    futures = [submit(batcher, number) for number in range(4)]
    futures[1].cancel()
    captioner.gate.set()
    assert text(futures[3]) == "picture 3"
    assert captioner.batches == [[999], [0, 2, 3]]


def test_closing_leaves_no_future_behind(captioner: ColourCaptioner) -> None:
    batcher = Batcher(captioner, batch_size=8, forward_limit_s=60)
    first = hold(batcher, captioner)
    waiting = [submit(batcher, number, fast=bool(number % 2)) for number in range(6)]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    wait_until(lambda: batcher._closed)
    captioner.gate.set()
    closer.join(10)
    assert text(first) == "picture 999"
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(Stopped):
        submit(batcher, 1)


def test_the_rate_counts_busy_time_only(batcher: Batcher, captioner: ColourCaptioner) -> None:
    assert batcher.images_per_second is None
    busy, caption = [], captioner.caption

    def timed(images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        began = time.monotonic()
        try:
            return caption(images, options)
        finally:
            busy.append(time.monotonic() - began)

    captioner.caption = timed  # type: ignore[method-assign]
    captioner.seconds_per_batch = 0.1
    for _ in range(2):
        time.sleep(0.2)
        submit(batcher, 1).result(10)
    measured = wait_until(lambda: not batcher._running and batcher.images_per_second)
    # With the idle time it would be a third of this.
    assert 0.6 * 2 / sum(busy) < measured <= 2 / sum(busy)


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(
        st.tuples(
            st.sampled_from([b for b in Behaviour if b < Behaviour.SEGFAULT]),
            st.booleans(),
            st.sampled_from([GREEDY, BEAMS]),
            st.booleans(),
        ),
        max_size=40,
    ),
    memory=st.integers(1, 8),
)
def test_every_image_gets_its_own_answer(plan: list[Any], memory: int) -> None:
    captioner = ColourCaptioner(memory=memory)
    batcher = Batcher(captioner, batch_size=4, forward_limit_s=60)
    try:
        futures = [
            submit(batcher, number, behaviour, options, fast=fast)
            for number, (behaviour, fast, options, _) in enumerate(plan)
        ]
        canceled = {n for n, future in enumerate(futures) if plan[n][3] and future.cancel()}
        for number, future in enumerate(futures):
            if number in canceled:
                with pytest.raises(CancelledError):
                    future.result(10)
            elif plan[number][0] is Behaviour.CAPTION:
                assert text(future) == f"picture {number}"
            elif plan[number][0] is Behaviour.OUT_OF_MEMORY:
                assert code(future) == "model_out_of_memory"
            else:
                assert code(future) == "caption_failed"
    finally:
        batcher.close()


DEADLY = """
import logging, sys
from model.errors import ModelOutOfMemory
from tests.captioners import Behaviour, ColourCaptioner, pixels
from worker.batcher import Batcher
from model.captioner import DecodingOptions

logging.basicConfig()
batcher = Batcher(ColourCaptioner(), batch_size=4, forward_limit_s=float(sys.argv[2]))
behaviour = Behaviour[sys.argv[1]]
futures = [batcher.submit(pixels(n, b), DecodingOptions(1, 1), fast=False)
           for n, b in enumerate([Behaviour.CAPTION, behaviour])]
print([future.exception() for future in futures])
"""


@pytest.mark.parametrize(
    ("behaviour", "limit_s", "reason", "status"),
    [
        ("HANG", "0.4", "a forward pass took longer than 0.4 s", 71),
        ("BREAK", "60", "died of CaptionerBroken", 70),
    ],
)
def test_what_only_a_new_process_can_mend_ends_the_process(
    behaviour: str, limit_s: str, reason: str, status: int
) -> None:
    """A stuck forward pass, and a captioner that fails even on a plain picture."""
    command = [sys.executable, "-c", DEADLY, behaviour, limit_s]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.returncode == status, run.stderr
    assert reason in run.stderr
    assert run.stdout == ""
