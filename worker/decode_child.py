"""The confined process in which untrusted images are decoded, one after the other.

``worker.decode_process`` starts it and speaks to it over a socket: a request says how many bytes of image lie
in the input memory, a reply what became of them; the pixels are then in the output memory. It ends with its
parent. Once it is ready, the kernel refuses it files, network and other processes (``worker.syscalls``).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import pi_heif
from PIL import AvifImagePlugin, Image

from model.captioner import Preprocessing
from model.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from model.image_formats import declared_pixels
from model.images import DecodedImage, read_image
from worker.syscalls import restrict_system_calls

READY, READY_UNRESTRICTED = b"R", b"U"
"""Its first byte: whether the kernel restricts its system calls, or cannot here."""
REQUEST = struct.Struct("<Q")
REPLY = struct.Struct("<BII240p")

_PR_SET_PDEATHSIG = 1
_MAX_OPEN_FILES = 32
# WebP: two canvases, the frame taken out and Pillow's own picture, four bytes each.
_WORST_BYTES_PER_PIXEL = 16


class Outcome(IntEnum):
    """What became of one image."""

    DECODED = 0
    UNSUPPORTED = 1
    CORRUPT = 2
    TOO_LARGE = 3


_OUTCOMES: dict[type[ImageError], Outcome] = {
    UnsupportedImage: Outcome.UNSUPPORTED,
    CorruptImage: Outcome.CORRUPT,
    ImageTooLarge: Outcome.TOO_LARGE,
}


@dataclass(frozen=True)
class Orders:
    """What a child is told when it starts: the network's input and its own limits."""

    width: int
    height: int
    resample: str
    fit: str
    max_pixels: int
    memory_limit_bytes: int
    """Address space it may take on top of what it needs to start."""
    time_limit_s: float
    """Wall-clock limit per image; the parent keeps it, the child backs it up at twice the time."""

    def to_json(self) -> str:
        """Write the orders as one command-line argument."""
        return json.dumps(asdict(self))

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become network input."""
        return Preprocessing(self.width, self.height, self.resample, self.fit)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one decoded image in the output memory."""
        return self.width * self.height * 3


def main(arguments: list[str]) -> None:
    """Confine this process, say ready, and decode until the parent hangs up."""
    orders = Orders(**json.loads(arguments[0]))
    parent, control, source, target = (int(argument) for argument in arguments[1:])
    _die_with(parent)
    _tame_libraries(orders)
    _check_decoder(orders)
    _confine(orders)
    with socket.socket(fileno=control) as connection:
        connection.sendall(READY if restrict_system_calls() else READY_UNRESTRICTED)
        _serve(connection, source, target, orders)


def _serve(connection: socket.socket, source: int, target: int, orders: Orders) -> None:
    while request := connection.recv(REQUEST.size, socket.MSG_WAITALL):
        # Should the parent be gone or stuck, the kernel ends a decoder that never returns.
        signal.setitimer(signal.ITIMER_REAL, 2 * orders.time_limit_s)
        reply = _decode(source, REQUEST.unpack(request)[0], target, orders)
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.sendall(reply)


def _decode(source: int, length: int, target: int, orders: Orders) -> bytes:
    try:
        image = _read_image(_read(source, length), orders)
    except ImageError as error:
        return REPLY.pack(_OUTCOMES[type(error)], 0, 0, str(error).encode())
    except MemoryError:
        return REPLY.pack(Outcome.TOO_LARGE, 0, 0, b"the file needs more memory than one image may take")
    os.pwrite(target, image.pixels.data, 0)
    return REPLY.pack(Outcome.DECODED, image.width, image.height, b"")


def _read_image(data: bytes, orders: Orders) -> DecodedImage:
    try:
        return read_image(data, orders.preprocessing, orders.max_pixels)
    except CorruptImage as error:
        # Some decoders cannot tell a damaged file from memory that is refused to them.
        if declared_pixels(data) * _WORST_BYTES_PER_PIXEL > orders.memory_limit_bytes:
            raise ImageTooLarge(f"{error} (or it needs more memory than one image may take)") from error
        raise


def _read(source: int, length: int) -> bytes:
    data = os.pread(source, length, 0)
    if len(data) != length:
        raise CorruptImage(f"only {len(data):,} of {length:,} bytes of the file arrived")
    return data


def _die_with(parent: int) -> None:
    """End when the parent ends, however it ends; its own signals must not reach a decoder it still needs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _tame_libraries(orders: Orders) -> None:
    """One thread each (the pool is the parallelism), our limit for pictures, no chatter about odd files."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    pi_heif.options.DECODE_THREADS = 1
    Image.MAX_IMAGE_PIXELS = orders.max_pixels
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _check_decoder(orders: Orders) -> None:
    """Decode something known: a broken installation must show now, and not as the first image's fault."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    read_image(buffer.getvalue(), orders.preprocessing)


def _confine(orders: Orders) -> None:
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, orders.pixel_bytes)
    if in_use := _address_space():
        _limit(resource.RLIMIT_AS, in_use + orders.memory_limit_bytes)
    with Path(os.devnull).open("wb") as nowhere:
        # Up to here stderr told the parent why a start failed; C libraries now write there what they like.
        os.dup2(nowhere.fileno(), 2)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(ValueError, OSError):
        # macOS refuses some limits; the wall-clock limit and the process boundary hold there too.
        resource.setrlimit(which, (value, value))


def _address_space() -> int:
    """Bytes of address space in use; 0 where the platform does not say (and does not enforce the limit)."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0


if __name__ == "__main__":
    main(sys.argv[1:])
