"""The bare loop: decode and caption photos from memory in one thread, and the bound its parts allow.

``python -m benchmarks.bare`` measures in a process of its own, so that it can be tied to one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Setting
from model.beam_captioner import BeamCaptioner
from model.captioner import Captioner, DecodingOptions, Pixels
from model.images import read_image
from model.loading import load_captioner

BATCH = 32
ROUNDS = 3
CORE = 0


@dataclass(frozen=True)
class Bare:
    """Medians: images per second of wall clock, and milliseconds of processor time per image."""

    rate: float
    cpu_ms: float
    decode_ms: float
    encoder_ms: float
    decoder_ms: float
    words: float
    """Mean length of the captions."""
    alone_ms: float
    """Wall clock of decoding and captioning one image, batches of one."""

    @property
    def bound_ms(self) -> float:
        """What the parts take that only the hardware can make quicker."""
        return self.decode_ms + self.encoder_ms + self.decoder_ms


def measure(model: str, files: list[bytes], threads: int | None) -> Bare:
    """Measure in this process."""
    captioner = load_captioner(model, threads=threads)
    batches = [files[at : at + BATCH] for at in range(0, len(files) - BATCH + 1, BATCH)]
    pixels = _decode(batches[0], captioner)
    parts = _Parts(captioner, pixels)
    found: list[list[float]] = []
    words: list[int] = []
    for _ in range(ROUNDS):
        # Every kind in every round: what else the machine does hits all of them alike.
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            captions = captioner.caption(_decode(batch, captioner), DecodingOptions())
            words += [len(one[0].text.split()) for one in captions]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        count = len(batches) * BATCH
        spent = [_cpu_ms(work) for work in (lambda: _decode(batches[0], captioner), parts.see, parts.say)]
        found.append([count / wall, cpu / count * 1000, *spent])
    alone = statistics.median(_alone_ms(data, captioner) for data in batches[0])
    rate, cpu, decode, encoder, decoder = (statistics.median(column) for column in zip(*found, strict=True))
    return Bare(rate, cpu, decode, encoder, decoder, statistics.mean(words), alone)


def _alone_ms(data: bytes, captioner: Captioner) -> float:
    began = time.perf_counter()
    captioner.caption(_decode([data], captioner), DecodingOptions())
    return (time.perf_counter() - began) * 1000


def _decode(files: list[bytes], captioner: Captioner) -> Pixels:
    return np.stack([read_image(data, captioner.preprocessing).pixels for data in files])


def _cpu_ms(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / BATCH * 1000


class _Parts:
    """The network's own work in one batch, without the search around it: encoder, and replayed steps."""

    def __init__(self, captioner: Captioner, pixels: Pixels) -> None:
        assert isinstance(captioner, BeamCaptioner), "the bound is known of our own captioners alone"
        self._model = captioner._model
        self._pixels = pixels
        self._calls: list[tuple[str, tuple[Any, ...]]] = []
        captioner._model = self
        captioner.caption(pixels, DecodingOptions())
        captioner._model = self._model

    def see(self, pixels: Pixels | None = None) -> None:
        self._model.see(self._pixels if pixels is None else pixels)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def record(*arguments: Any) -> Any:
            kept = tuple(np.copy(given) if isinstance(given, np.ndarray) else given for given in arguments)
            self._calls.append((name, kept))
            return getattr(self._model, name)(*arguments)

        return record

    def say(self) -> None:
        for name, arguments in self._calls:
            getattr(self._model, name)(*arguments)


def bare(setting: Setting, core: int | None = CORE, images: int = 4 * BATCH) -> Bare:
    """Measure in a process of its own, tied to one core or (``None``) on all of them."""
    command = [sys.executable, "-m", "benchmarks.bare", "--model", setting.model, "--images", str(images)]
    command += ["--photos", str(setting.photos), *(["--core", str(core)] if core is not None else [])]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return Bare(**json.loads(done.stdout))


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure the bare loop on one core and on all, and its bound."""
    one = bare(setting)
    yield Figure("JPEG decoding, 500 x 375", one.decode_ms, "ms/image", note="processor time, one core")
    yield Figure("encoder", one.encoder_ms, "ms/image", note=f"batches of {BATCH}")
    yield Figure("decoder", one.decoder_ms, "ms/image", note=f"{one.words:.1f} words on average")
    yield Figure("bare loop, one core", one.rate, "images/s")
    yield Figure("bare loop / bound", one.bound_ms / one.cpu_ms, goal=">= 0.90", note="of processor time")
    yield Figure("bare loop, all cores", bare(setting, None).rate, "images/s")


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4 * BATCH)
    parser.add_argument("--core", type=int)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    paths = itertools.islice(itertools.cycle(sorted(given.photos.iterdir())), given.images)
    found = measure(given.model, [path.read_bytes() for path in paths], 1 if given.core is not None else None)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
