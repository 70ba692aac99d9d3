"""One batch through the captioner: whatever goes wrong, each image gets captions or an error of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from jobs.errors import ItemCode, ItemError
from jobs.tracing import Traced
from model.beam_captioner import loops
from model.captioner import Caption, Captioner, DecodingOptions, Pixels
from model.errors import ModelOutOfMemory
from worker.watchdog import Watchdog

log = logging.getLogger(__name__)


class CaptionerBroken(Exception):
    """The captioner fails on what it must be able to do; only a new process can help."""


@dataclass(eq=False)
class Entry:
    """One image that waits for captions."""

    pixels: Pixels
    options: DecodingOptions
    since: float
    span: Traced | None = None
    future: Future[list[Caption]] = field(default_factory=Future)


@dataclass(frozen=True)
class _Failure:
    """Why a batch failed, and whether for want of memory."""

    words: str
    memory: bool


_Shape = tuple[int | None, int | None, int | None, bool]


class Forward:
    """Runs batches and learns how large they may be."""

    def __init__(self, captioner: Captioner, watchdog: Watchdog, batch_size: int) -> None:
        self._captioner = captioner
        self._watchdog = watchdog
        self._batch_size = batch_size
        self._limits: dict[_Shape, int] = {}

    def limit(self, options: DecodingOptions) -> int:
        """Return the largest batch worth trying with these options."""
        return self._limits.get(_shape(options), self._batch_size)

    def run(self, entries: Sequence[Entry]) -> None:
        """Resolve the future of every entry (all of the same options).

        Raises ``CaptionerBroken`` when not the images are to blame, with futures left unresolved.
        """
        running = [entry for entry in entries if entry.future.set_running_or_notify_cancel()]
        if running:
            self._run(running)

    def _run(self, entries: Sequence[Entry]) -> None:
        options = entries[0].options
        if len(entries) > self.limit(options):
            self._halves(entries)
            return
        failure = self._attempt(entries)
        if failure is None:
            return
        if failure.memory:
            self._out_of_memory(entries, failure.words)
        else:
            self._failed(entries, failure.words)

    def _attempt(self, entries: Sequence[Entry]) -> _Failure | None:
        """Caption a batch; a failure comes back in words, since what is tried next needs the device's memory.

        An exception would keep the frames it came through, and with them the failed batch's activations.
        """
        try:
            results = self._caption(entries)
        except (ModelOutOfMemory, MemoryError) as error:
            return _Failure(str(error), memory=True)
        except Exception as error:
            return _Failure(f"{type(error).__name__}: {ascii(str(error))[1:200]}", memory=False)
        for entry, captions in zip(entries, results, strict=True):
            _resolve(entry, captions)
        return None

    def _caption(self, entries: Sequence[Entry]) -> list[list[Caption]]:
        with self._watchdog.watching():
            images = np.stack([entry.pixels for entry in entries])
            results = self._captioner.caption(images, entries[0].options)
        if len(results) != len(entries):
            raise ValueError(f"the captioner gave {len(results)} results for {len(entries)} images")
        return results

    def _halves(self, entries: Sequence[Entry]) -> None:
        middle = len(entries) // 2
        self._run(entries[:middle])
        self._run(entries[middle:])

    def _out_of_memory(self, entries: Sequence[Entry], words: str) -> None:
        if len(entries) == 1:
            message = f"the device's memory does not suffice even for this image alone: {words}"
            entries[0].future.set_exception(ItemError(ItemCode.MODEL_OUT_OF_MEMORY, message))
            return
        smaller = (len(entries) + 1) // 2
        log.warning("out of memory with %d images; batches now hold at most %d", len(entries), smaller)
        self._limits[_shape(entries[0].options)] = smaller
        self._halves(entries)

    def _failed(self, entries: Sequence[Entry], words: str) -> None:
        if len(entries) > 1:
            log.warning("a batch of %d images failed (%s); looking for the bad one", len(entries), words)
            self._halves(entries)
            return
        self._check_captioner()
        message = f"the captioner failed on this image: {words}"
        entries[0].future.set_exception(ItemError(ItemCode.CAPTION_FAILED, message))

    def _check_captioner(self) -> None:
        """Caption a grey picture with default options: if even that fails, no image may be blamed."""
        shape = (1, self._captioner.preprocessing.height, self._captioner.preprocessing.width, 3)
        try:
            with self._watchdog.watching():
                plain = self._captioner.resolve(DecodingOptions())
                self._captioner.caption(np.full(shape, 127, dtype=np.uint8), plain)
        except (ModelOutOfMemory, MemoryError):
            return
        except Exception as error:
            raise CaptionerBroken(f"the captioner fails on a plain grey picture: {error!r}") from error


def _shape(options: DecodingOptions) -> _Shape:
    """Return what a batch's memory grows with; clients have endless prompts and seeds, and few of these."""
    return options.num_beams, options.num_captions, options.max_length, options.prompt is not None


def _resolve(entry: Entry, captions: list[Caption]) -> None:
    """Keep the captions that say something; none left is the image's error."""
    good = [caption for caption in captions if math.isfinite(caption.score) and _sound(caption.text)]
    if good:
        entry.future.set_result(good)
    else:
        message = "the captioner found nothing to say about this image, or only repeats itself"
        entry.future.set_exception(ItemError(ItemCode.CAPTION_FAILED, message))


def _sound(text: str) -> bool:
    """Whether a caption can be stored and is neither empty nor one to three words three times in a row."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return False
    words = tuple(text.split())
    return bool(words) and not loops(words)
