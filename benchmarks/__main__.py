"""Measure decoding, captioning one by one and in batches, and both together, on the sample photos."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine
from model.captioner import Captioner, DecodingOptions, Pixels
from model.images import read_image
from model.loading import load_captioner, shipped_models

PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "photos"
ROUNDS = 3


def images_per_second(work: Callable[[], int], seconds: float) -> float:
    """Run ``work``, which returns how many images it did, for ``seconds``: median rate of three rounds."""
    work()
    return statistics.median(_rate(work, seconds / ROUNDS) for _ in range(ROUNDS))


def _rate(work: Callable[[], int], seconds: float) -> float:
    start = time.perf_counter()
    images = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        images += work()
    return images / elapsed


def decode_work(files: list[bytes], captioner: Captioner) -> Callable[[], int]:
    """Decode every photo once per call, in this thread."""

    def work() -> int:
        for data in files:
            read_image(data, captioner.preprocessing)
        return len(files)

    return work


def caption_work(pixels: Pixels, captioner: Captioner, batch: int) -> Callable[[], int]:
    """Caption one batch of ``batch`` images per call with the model's own decoding defaults."""
    images = np.stack(list(itertools.islice(itertools.cycle(pixels), batch)))
    options = captioner.resolve(DecodingOptions())

    def work() -> int:
        return len(captioner.caption(images, options))

    return work


def both(files: list[bytes], captioner: Captioner, batch: int) -> Callable[[], int]:
    """Decode and caption ``batch`` photos per call, one after the other."""
    options = captioner.resolve(DecodingOptions())
    endless = itertools.cycle(files)

    def work() -> int:
        chosen: Iterable[bytes] = itertools.islice(endless, batch)
        images = np.stack([read_image(data, captioner.preprocessing).pixels for data in chosen])
        return len(captioner.caption(images, options))

    return work


def report(model: str, seconds: float) -> None:
    """Measure and print one line a measurement, each with its ratio to captioning one by one."""
    print(describe_machine())
    start = time.perf_counter()
    captioner = load_captioner(model)
    print(f"{captioner.name}: loaded in {time.perf_counter() - start:.1f} s")
    files = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    pixels = np.stack([read_image(data, captioner.preprocessing).pixels for data in files])
    print(
        f"decode, one thread        {images_per_second(decode_work(files, captioner), seconds):8.1f} images/s"
    )
    alone = images_per_second(caption_work(pixels, captioner, 1), seconds)
    print(f"caption, one by one       {alone:8.1f} images/s")
    for batch in (8, 32):
        rate = images_per_second(caption_work(pixels, captioner, batch), seconds)
        print(f"caption, batches of {batch:2d}    {rate:8.1f} images/s  {rate / alone:5.2f} x one by one")
    rate = images_per_second(both(files, captioner, 32), seconds)
    print(f"decode + caption, 32      {rate:8.1f} images/s  {rate / alone:5.2f} x captioning one by one")


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", default=shipped_models()[0], help="a shipped model or a model folder")
    parser.add_argument("--seconds", type=float, default=6.0, help="time per measurement")
    arguments = parser.parse_args()
    report(arguments.model, arguments.seconds)


if __name__ == "__main__":
    main()
