"""The process-wide batcher: images of many chunks and jobs share forward passes of one captioner."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from concurrent.futures import Future

from jobs.metrics import BATCH_IMAGES, BATCH_PLACES, STAGE_PLACES, STAGE_SECONDS
from jobs.tracing import Traced
from model.captioner import Caption, Captioner, DecodingOptions, Pixels
from worker.forward import Entry, Forward
from worker.rate import Rate
from worker.stopping import Stopped
from worker.vital import start_vital
from worker.watchdog import Watchdog

# How long the oldest image waits for a fuller batch while more images are on their way. A person waits for
# a small job; for a large one full batches are worth more, and while it waits its decoding has the cores.
FAST_PATIENCE_S = 0.02
BULK_PATIENCE_S = 0.25
# What part of a batch large jobs fill where a small one is in it: it is to end soon.
FILLED = 4
# Decoded images that may wait, in batches: enough that the next batch is full when this one ends.
BATCHES_AHEAD = 2


class _Lane:
    """Images of small jobs, or of large ones: waiting, and announced, by options."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.count = 0
        self.coming: Counter[DecodingOptions] = Counter()
        self._waiting: dict[DecodingOptions, deque[Entry]] = {}

    def put(self, entry: Entry) -> None:
        self._waiting.setdefault(entry.options, deque()).append(entry)
        self.count += 1

    def size(self, options: DecodingOptions) -> int:
        return len(self._waiting.get(options, ()))

    def oldest(self) -> Entry | None:
        return min((entries[0] for entries in self._waiting.values()), key=lambda e: e.since, default=None)

    def take(self, options: DecodingOptions, most: int) -> list[Entry]:
        entries = self._waiting.get(options, deque())
        taken = [entries.popleft() for _ in range(min(most, len(entries)))]
        if not entries:
            self._waiting.pop(options, None)
        self.count -= len(taken)
        return taken

    def expect(self, options: DecodingOptions, images: int) -> None:
        self.coming[options] += images
        if not self.coming[options]:
            del self.coming[options]


class Batcher:
    """Gives every submitted image a future: captions, best first, or ``ItemError``.

    One thread runs the captioner. Images join a batch when their resolved options are equal; those of small
    jobs (``fast``) go first, and large ones fill no more than a quarter of their batch. A batch starts when
    it is full, when nothing more is on its way, or when its oldest image has waited long enough.
    """

    def __init__(self, captioner: Captioner, *, batch_size: int, forward_limit_s: float) -> None:
        self._watchdog = Watchdog(forward_limit_s)
        self._forward = Forward(captioner, self._watchdog, batch_size)
        self._capacity = BATCHES_AHEAD * batch_size
        STAGE_PLACES.add(self._capacity, "wait")
        STAGE_PLACES.add(1, "caption")
        self._fast = _Lane(FAST_PATIENCE_S)
        self._bulk = _Lane(BULK_PATIENCE_S)
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._space = threading.Condition(lock)
        self._closed = False
        self._rate = Rate()
        self._busy_since: float | None = None
        self._running = False
        self._thread = start_vital(self._loop, "batcher")

    @property
    def images_per_second(self) -> float | None:
        """Images captioned per second of the time in which there were any."""
        return self._rate.images_per_second

    def expect(self, options: DecodingOptions, images: int, *, fast: bool) -> None:
        """Announce ``images`` that will be submitted soon (or take back an announcement, if negative)."""
        with self._work:
            self._lane(fast).expect(options, images)
            self._set_clock()
            self._work.notify()

    def submit(
        self, pixels: Pixels, options: DecodingOptions, *, fast: bool, span: Traced | None = None
    ) -> Future[list[Caption]]:
        """Queue one preprocessed image (height, width, 3) with resolved options.

        Blocks while the queue is full; raises ``Stopped`` when the batcher is closed.
        """
        lane = self._lane(fast)
        with self._work:
            self._space.wait_for(lambda: self._closed or lane.count < self._capacity)
            if self._closed:
                raise Stopped
            entry = Entry(pixels, options, time.monotonic(), span)
            lane.put(entry)
            self._set_clock()
            self._work.notify()
        return entry.future

    def close(self) -> None:
        """Finish the batch in hand, cancel what waits, and end the threads."""
        with self._work:
            self._closed = True
            self._work.notify_all()
            self._space.notify_all()
        self._thread.join()
        self._watchdog.close()
        STAGE_PLACES.add(-self._capacity, "wait")
        STAGE_PLACES.add(-1, "caption")

    def _lane(self, fast: bool) -> _Lane:
        return self._fast if fast else self._bulk

    def _loop(self) -> None:
        while batch := self._next_batch():
            began = time.monotonic()
            BATCH_IMAGES.observe(len(batch))
            BATCH_PLACES.add(max(len(batch), self._forward.limit(batch[0].options)))
            STAGE_SECONDS.add(sum(began - entry.since for entry in batch), "wait")
            self._forward.run(batch)
            ended = time.monotonic()
            STAGE_SECONDS.add(ended - began, "caption")
            _trace(batch, began, ended)
            self._measure(len(batch))
            # Its pixels are not to stay while the next one is waited for.
            del batch
        for lane in (self._fast, self._bulk):
            while entry := lane.oldest():
                for left in lane.take(entry.options, lane.count):
                    left.future.cancel()

    def _next_batch(self) -> list[Entry]:
        """Wait for a batch that should start now; empty when closed."""
        with self._work:
            while not self._closed:
                batch, patience = self._choose()
                if batch:
                    self._running = True
                    self._space.notify_all()
                    return batch
                self._work.wait(patience)
            return []

    def _choose(self) -> tuple[list[Entry], float | None]:
        """Return the next batch, or else how long it is worth waiting for it to grow."""
        lane = self._fast if self._fast.count else self._bulk
        oldest = lane.oldest()
        if oldest is None:
            return [], None
        options = oldest.options
        limit = self._forward.limit(options)
        patience = oldest.since + lane.patience_s - time.monotonic()
        waiting = self._fast.size(options) + self._bulk.size(options)
        if waiting < limit and lane.coming[options] and patience > 0:
            return [], patience
        batch = self._fast.take(options, limit)
        most = limit // FILLED if batch else limit
        return batch + self._bulk.take(options, most - len(batch)), None

    def _set_clock(self) -> None:
        """Start the clock of busy time with the first image in sight, stop it with the last."""
        lanes = (self._fast, self._bulk)
        if not (self._running or any(lane.count or lane.coming for lane in lanes)):
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = time.monotonic()

    def _measure(self, images: int) -> None:
        with self._work:
            now = time.monotonic()
            self._running = False
            if self._busy_since is not None:
                self._rate.add(images, now - self._busy_since)
                self._busy_since = now
            self._set_clock()


def _trace(batch: list[Entry], began: float, ended: float) -> None:
    """Say how long each traced image waited for its batch, and how long that took."""
    for entry in batch:
        if entry.span is not None:
            entry.span.add("batch", entry.since, began)
            entry.span.add("caption", began, ended, images=len(batch))
