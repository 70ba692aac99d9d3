"""Decoding of untrusted images in a few confined child processes.

A hostile or broken file can at worst end the child that reads it; that costs this one image and a restart.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from jobs.errors import ItemCode, ItemError
from jobs.metrics import DECODE_CRASHES, DECODE_STARTS, STAGE_PLACES, STAGE_SECONDS
from model.captioner import Preprocessing
from model.images import DEFAULT_MAX_PIXELS, DecodedImage
from worker.decode_child import Orders
from worker.decode_process import ChildDied, DecodeProcess, DecoderUnavailable

__all__ = ["DecodePool", "DecoderUnavailable"]

DEFAULT_MEMORY_LIMIT_BYTES = 2 << 30
DEFAULT_TIME_LIMIT_S = 30.0

logger = logging.getLogger(__name__)

_WAITING_PER_PROCESS = 2
# Decoders are C code of many hands: what one leaks is given back before it counts.
_IMAGES_PER_CHILD = 5_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
# Sent from outside (an operator, the kernel out of memory), so perhaps not this image's fault.
_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)


@dataclass(frozen=True)
class _Work:
    data: bytes | memoryview
    future: Future[DecodedImage] = field(default_factory=Future)

    def fail(self, error: Exception) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class _Waiting:
    """Images that wait for a child; bounded, closable."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[_Work] = deque()
        lock = threading.Lock()
        # Two conditions, so that each image wakes one thread and not all that fetch.
        self._work = threading.Condition(lock)
        self._space = threading.Condition(lock)
        self._closed = False

    def put(self, work: _Work) -> None:
        with self._space:
            self._space.wait_for(lambda: self._closed or len(self._items) < self._limit)
            if self._closed:
                raise DecoderUnavailable("the decode pool is closed")
            self._items.append(work)
            self._work.notify()

    def get(self) -> _Work | None:
        with self._work:
            self._work.wait_for(lambda: self._closed or self._items)
            if not self._items:
                return None
            self._space.notify()
            return self._items.popleft()

    def fail_all(self, reason: str) -> None:
        with self._space:
            while self._items:
                self._items.popleft().fail(DecoderUnavailable(reason))
            self._space.notify_all()

    def close(self) -> None:
        with self._space:
            self._closed = True
            self._work.notify_all()
            self._space.notify_all()


class _State:
    """What the slots know of each other."""

    def __init__(self, slots: int) -> None:
        self.closing = threading.Event()
        self.unavailable = ""
        """Why no slot can start a child; empty while any can, or none has tried."""
        self._slots = slots
        self._down: set[_Slot] = set()
        self._told = False
        self._lock = threading.Lock()

    def went_down(self, slot: _Slot, reason: str) -> bool:
        """Note that a slot has no child; true if now none has."""
        with self._lock:
            self._down.add(slot)
            if len(self._down) == self._slots:
                self.unavailable = reason
            return bool(self.unavailable)

    def tell_unrestricted(self) -> None:
        """Log, once, that children decode with less around them than elsewhere."""
        with self._lock:
            if not self._told:
                self._told = True
                logger.warning(
                    "this system cannot restrict the system calls of decoding processes (no seccomp): "
                    "only their limits of memory and time hold"
                )

    def came_up(self, slot: _Slot) -> None:
        """Note that a slot has a child."""
        with self._lock:
            self._down.discard(slot)
            self.unavailable = ""


class _Slot:
    """One thread that keeps one child running and hands it images.

    The thread must live as long as the child: where the kernel ends a child with its parent, the parent is
    the thread that started it.
    """

    def __init__(self, orders: Orders, waiting: _Waiting, state: _State, number: int) -> None:
        self.thread = threading.Thread(target=self._run, name=f"decode-{number}", daemon=True)
        self._orders = orders
        self._waiting = waiting
        self._state = state
        self._child: DecodeProcess | None = None

    def interrupt(self) -> None:
        """End the child from another thread; only once the pool is closing."""
        if child := self._child:
            child.kill()

    def _run(self) -> None:
        while not self._state.closing.is_set():
            if self._come_up() and (work := self._waiting.get()):
                self._finish(work)
                # The file and its pixels are not to stay while the next one is waited for.
                del work
        self._drop_child()

    def _come_up(self) -> bool:
        """Start a child; where that fails, say so, fail what waits in vain, and pause longer each time."""
        pause = _FIRST_PAUSE_S
        while not self._state.closing.is_set():
            try:
                self._ready_child()
            except DecoderUnavailable as error:
                if self._state.closing.is_set():
                    break
                if self._state.went_down(self, error.message):
                    self._waiting.fail_all(error.message)
                logger.error("%s; next try in %g s", error.message, pause)
                self._state.closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self._state.came_up(self)
                return True
        return False

    def _ready_child(self) -> DecodeProcess:
        child = self._child
        if child and child.served < _IMAGES_PER_CHILD and child.alive():
            return child
        self._drop_child()
        child = self._child = DecodeProcess(self._orders)
        DECODE_STARTS.add()
        try:
            child.wait_ready()
        except DecoderUnavailable:
            self._drop_child()
            raise
        if not child.restricted:
            self._state.tell_unrestricted()
        return child

    def _drop_child(self) -> None:
        if self._child:
            self._child.close()
            self._child = None

    def _finish(self, work: _Work) -> None:
        if not work.future.set_running_or_notify_cancel():
            return
        began = time.monotonic()
        try:
            work.future.set_result(self._decode(work.data))
        except Exception as error:
            # Whatever it was: who waits for the image must hear of it, and the next one must have its turn.
            work.future.set_exception(error)
        STAGE_SECONDS.add(time.monotonic() - began, "decode")

    def _decode(self, data: bytes | memoryview, again: bool = True) -> DecodedImage:
        try:
            return self._ready_child().decode(data)
        except TimeoutError:
            self._drop_child()
            DECODE_CRASHES.add()
            raise ItemError(
                ItemCode.TIMEOUT, f"decoding took longer than {self._orders.time_limit_s:g} s"
            ) from None
        except ChildDied as death:
            self._drop_child()
            if self._state.closing.is_set():
                raise DecoderUnavailable("the decode pool was closed") from death
            DECODE_CRASHES.add()
            logger.warning("a decoding process ended by %s on an image of %d bytes", death, len(data))
            if not (again and death.status in _OUTSIDE):
                raise _blame(death) from death
        return self._decode(data, again=False)


def _blame(death: ChildDied) -> ItemError:
    if death.status in _OUTSIDE:
        return ItemError(
            ItemCode.IMAGE_TOO_LARGE, f"decoding ended twice by {death}, most likely out of memory"
        )
    return ItemError(ItemCode.IMAGE_CORRUPT, f"the image crashes its decoder ({death})")


class DecodePool:
    """A few confined child processes that decode images, usable from any number of threads.

    Each child runs without credentials in its environment, within ``memory_limit_bytes`` of its own (not
    enforced on macOS), without files, network and processes (``worker.syscalls``; Linux), and is killed when
    one image takes longer than ``time_limit_s``. The worst format
    takes about 16 bytes a pixel, so the defaults leave room for every picture of ``max_pixels``.
    """

    def __init__(
        self,
        processes: int,
        preprocessing: Preprocessing,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    ) -> None:
        """Start ``processes`` children side by side, without waiting for them."""
        orders = Orders(
            preprocessing.width,
            preprocessing.height,
            preprocessing.resample,
            preprocessing.fit,
            max_pixels,
            memory_limit_bytes,
            time_limit_s,
        )
        self._waiting = _Waiting(_WAITING_PER_PROCESS * processes)
        self._state = _State(processes)
        STAGE_PLACES.add(processes, "decode")
        self._slots = [_Slot(orders, self._waiting, self._state, number) for number in range(processes)]
        for slot in self._slots:
            slot.thread.start()

    def decode(self, data: bytes | memoryview) -> Future[DecodedImage]:
        """Have one image file decoded.

        Blocks while two images per process wait already, so that files do not pile up in memory. The future
        raises ``ItemError`` (unsupported_format, image_corrupt, image_too_large, timeout) if the image is bad
        and ``DecoderUnavailable`` (release the work, try again later) if no child can be started or the pool
        closes.
        """
        work = _Work(data)
        if reason := self._state.unavailable:
            work.fail(DecoderUnavailable(reason))
        else:
            self._waiting.put(work)
        return work.future

    def close(self) -> None:
        """End all children at once; what they had not finished fails with ``DecoderUnavailable``."""
        self._state.closing.set()
        self._waiting.close()
        self._waiting.fail_all("the decode pool was closed")
        for slot in self._slots:
            slot.interrupt()
        for slot in self._slots:
            slot.thread.join()
        STAGE_PLACES.add(-len(self._slots), "decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
