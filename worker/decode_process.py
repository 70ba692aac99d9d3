"""The parent's end of one decoding child: start it, hand it an image, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import numpy as np

from jobs.errors import ItemCode, ItemError, TransientError
from model.captioner import Pixels
from model.images import DecodedImage
from worker.decode_child import READY, REPLY, REQUEST, Orders, Outcome

_START_LIMIT_S = 60.0
_END_LIMIT_S = 5.0
_REPORT_BYTES = 2_000
# A file above this size is not kept in memory until the next image.
_KEPT_BYTES = 8 << 20
_ROOT = Path(__file__).resolve().parent.parent

_CODES: dict[int, ItemCode] = {
    Outcome.UNSUPPORTED: ItemCode.UNSUPPORTED_FORMAT,
    Outcome.CORRUPT: ItemCode.IMAGE_CORRUPT,
    Outcome.TOO_LARGE: ItemCode.IMAGE_TOO_LARGE,
}


class DecoderUnavailable(TransientError):
    """Images cannot be decoded on this machine at the moment; no image is to blame."""

    def __init__(self, message: str) -> None:
        super().__init__("decoder_unavailable", message)


class ChildDied(Exception):
    """A child ended while it had an image; ``status`` is as in ``subprocess``: minus the signal's number."""

    def __init__(self, status: int) -> None:
        super().__init__(f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}")
        self.status = status


class DecodeProcess:
    """One running child and the memory shared with it; used by one thread, except for ``kill``."""

    def __init__(self, orders: Orders) -> None:
        """Start the child, which ends with the calling thread; ``wait_ready`` says whether it came up."""
        self._orders = orders
        self.served = 0
        """Images handed to it so far."""
        self.restricted = False
        """Whether the kernel refuses it files, network and processes; known once it is ready."""
        self._held = contextlib.ExitStack()
        try:
            self._launch()
        except OSError as error:
            self._held.close()
            raise DecoderUnavailable(f"no decoding process can be started: {error}") from error

    def wait_ready(self) -> None:
        """Wait until the child can decode; raise ``DecoderUnavailable`` with its last words if it cannot."""
        try:
            ready = self._receive(len(READY), time.monotonic() + _START_LIMIT_S)
        except (ChildDied, TimeoutError) as error:
            self._complaints.seek(0)
            words = self._complaints.read()[-_REPORT_BYTES:].decode(errors="replace").strip()
            reason = ": ".join(filter(None, (str(error), words)))
            raise DecoderUnavailable(f"no decoding process can be started: {reason}") from error
        self.restricted = ready == READY

    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def decode(self, data: bytes | memoryview) -> DecodedImage:
        """Decode one image.

        Raises ``ItemError`` if the image is bad, ``TimeoutError`` if it took longer than the limit,
        ``ChildDied`` if the child ended meanwhile. After the last two the child is of no more use, and it is
        ended where it says what none of ours does: an image has taken it over.
        """
        deadline = time.monotonic() + self._orders.time_limit_s
        self.served += 1
        self._hand_over(data)
        try:
            self._control.sendall(REQUEST.pack(len(data)))
        except OSError:
            raise ChildDied(self._status()) from None
        code, width, height, message = REPLY.unpack(self._receive(REPLY.size, deadline))
        if len(data) > _KEPT_BYTES:
            os.ftruncate(self._source.fileno(), 0)
        if code != Outcome.DECODED:
            raise ItemError(_CODES.get(code, ItemCode.IMAGE_CORRUPT), _printable(message))
        pixels = self._pixels()
        if pixels is None or not 0 < width * height <= self._orders.max_pixels:
            self._process.kill()
            self._process.wait()
            raise ItemError(ItemCode.IMAGE_CORRUPT, "the image makes its decoder say what cannot be")
        return DecodedImage(pixels, width, height)

    def kill(self) -> None:
        """End the child at once; a ``decode`` that waits for it in another thread raises ``ChildDied``."""
        self._process.kill()

    def close(self) -> None:
        """End the child and give back everything it held."""
        self._process.kill()
        self._process.wait()
        self._held.close()

    def _hand_over(self, data: bytes | memoryview) -> None:
        view, at = memoryview(data).cast("B"), 0
        try:
            while at < len(view):
                at += os.pwrite(self._source.fileno(), view[at:], at)
        except OSError as error:
            raise DecoderUnavailable(f"no room to hand over {len(view):,} bytes: {error}") from error

    def _status(self) -> int:
        try:
            return self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            # It hung up without ending, which ours never does.
            self._process.kill()
            return self._process.wait()

    def _launch(self) -> None:
        # Files without a name: nothing is left behind, however either side ends. The parent reads and writes
        # them and never maps them, since a child gone wild could cut them short under a mapping.
        self._source, self._target, self._complaints = (
            self._held.enter_context(_nameless_file()) for _ in range(3)
        )
        self._control, theirs = (self._held.enter_context(end) for end in socket.socketpair())
        self._process = _start(self._orders, theirs, self._source, self._target, self._complaints)
        theirs.close()

    def _receive(self, size: int, deadline: float) -> bytes:
        received = b""
        while len(received) < size:
            self._control.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = self._control.recv(size - len(received))
            except ConnectionError:
                piece = b""
            if not piece:
                raise ChildDied(self._status())
            received += piece
        return received

    def _pixels(self) -> Pixels | None:
        """Return the decoded pixels; none if some are missing, whose places would hold old memory."""
        pixels = np.empty((self._orders.height, self._orders.width, 3), np.uint8)
        return pixels if os.preadv(self._target.fileno(), [pixels.data], 0) == pixels.nbytes else None


def _printable(message: bytes) -> str:
    """Return a child's words as text that every database and terminal takes."""
    text = message.decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _start(
    orders: Orders, control: socket.socket, source: IO[bytes], target: IO[bytes], complaints: IO[bytes]
) -> subprocess.Popen[bytes]:
    shared = [control.fileno(), source.fileno(), target.fileno()]
    words = [orders.to_json(), *(str(number) for number in (os.getpid(), *shared))]
    return subprocess.Popen(  # noqa: S603 - our own module, run by our own interpreter
        [sys.executable, "-B", "-P", "-s", "-m", "worker.decode_child", *words],
        env=_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        pass_fds=shared,
        # Ctrl-C goes to the whole group; a parent that finishes its work still needs its children.
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Nothing of the parent's: it holds credentials, and the child handles what strangers send."""
    folders = [str(_ROOT), *(folder for folder in sys.path if Path(folder).is_absolute())]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders)),
        # One thread and one heap: a thread's own heap would count as address space.
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }


def _nameless_file() -> IO[bytes]:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("captionfleet-decode"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
