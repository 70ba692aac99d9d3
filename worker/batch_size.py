"""How many images a forward pass takes at most where no setting says it."""

from __future__ import annotations

import logging
import time

import numpy as np

from model.captioner import Captioner, DecodingOptions
from model.errors import ModelOutOfMemory

log = logging.getLogger(__name__)

# On CPUs more gains a few hundredths (docs/performance.md), and trying would take long.
ON_A_CPU = 32
SMALLEST, LARGEST = 8, 512
# Twice the images must be worth their memory, and the wait until a batch is full.
WORTH = 1.1


def best_batch_size(captioner: Captioner) -> int:
    """Double the batch on a GPU while images become a tenth cheaper and memory holds them; 32 on a CPU."""
    if not captioner.device.startswith("cuda"):
        return ON_A_CPU
    best, highest, size = 1, 0.0, SMALLEST
    while size <= LARGEST:
        try:
            rate = _rate(captioner, size)
        except (ModelOutOfMemory, MemoryError):
            break
        if rate < WORTH * highest:
            break
        best, highest, size = size, rate, 2 * size
    log.info("batches of up to %d images: %.0f images/s in a trial", best, highest)
    return best


def _rate(captioner: Captioner, size: int) -> float:
    """Return images per second of the second batch: the first one also makes kernels and room."""
    shape = (size, captioner.preprocessing.height, captioner.preprocessing.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    options = captioner.resolve(DecodingOptions())
    captioner.caption(images, options)
    began = time.perf_counter()
    captioner.caption(images, options)
    return size / (time.perf_counter() - began)
