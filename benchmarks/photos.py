"""Distinct photos for measurements, cut from the sample photos: same size as Flickr's, same every time."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).resolve().parents[1] / "examples" / "photos"
SIZE = (500, 375)
_QUALITY = 92


def make_photos(folder: Path, count: int) -> None:
    """Write ``count`` different JPEG cut-outs of 500 x 375 pixels into ``folder``."""
    order = random.Random(0)
    samples = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))]
    for number in range(count):
        sample = samples[number % len(samples)]
        share = order.uniform(0.6, 0.95)
        width, height = share * sample.width, share * sample.height
        left, top = order.uniform(0, sample.width - width), order.uniform(0, sample.height - height)
        box = (left, top, left + width, top + height)
        cut = sample.resize(SIZE, Image.Resampling.BICUBIC, box)
        cut.save(folder / f"{number:06}.jpg", quality=_QUALITY)
