"""A process's captioner, named by the settings."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import StartupError
from jobs.ids import new_worker_id
from jobs.settings import Settings
from model.captioner import Captioner
from model.errors import CheckpointInvalid

if TYPE_CHECKING:
    from worker.decoding import DecodePool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """What a pipeline serves: a loaded model, its largest batch, what decodes for it; under a worker's id."""

    worker_id: str
    model: str
    captioner: Captioner
    decoder: DecodePool
    batch_size: int


def load_model(settings: Settings, model: str) -> Captioner:
    """Load a model of the settings onto their device; raise ``StartupError`` checkpoint_invalid."""
    from model.loading import load_captioner

    started = time.monotonic()
    cache = cache_folder(settings)
    try:
        captioner = load_captioner(
            settings.model_path(model),
            settings.device,
            cache_dir=cache,
            threads=settings.threads,
            precision=settings.precision,
        )
    except CheckpointInvalid as error:
        raise StartupError("checkpoint_invalid", str(error)) from error
    seconds = time.monotonic() - started
    log.info("loaded %s (%s) on %s in %.1f s", model, captioner.name, captioner.device, seconds)
    return captioner


def cache_folder(settings: Settings) -> Path | None:
    """Return where compiled models are kept: the first folder that can be written; ``None`` without any."""
    for folder in _cache_folders(settings):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    log.info("compiled models are not kept: no cache folder can be written")
    return None


def _cache_folders(settings: Settings) -> Iterator[Path]:
    if settings.cache_dir is not None:
        yield settings.cache_dir
        return
    try:
        yield (settings.user_cache or Path.home() / ".cache") / "captionfleet"
    except RuntimeError:
        log.debug("this user has no home folder")
    # Services often run without a home of their own, but with a data folder.
    yield settings.data_dir / "cache"


def serving(settings: Settings, model: str, captioner: Captioner, worker_id: str | None = None) -> Serving:
    """Start decode processes; return what a pipeline of this process serves (default: as a new worker)."""
    from worker.batch_size import best_batch_size
    from worker.decoding import DecodePool

    # First, for it may fail, and nobody would stop the processes.
    batch_size = settings.batch_size or best_batch_size(captioner)
    decoder = DecodePool(
        settings.decode_processes,
        captioner.preprocessing,
        max_pixels=settings.max_image_pixels,
        memory_limit_bytes=settings.decode_memory_bytes,
        time_limit_s=settings.decode_limit_s,
    )
    return Serving(worker_id or new_worker_id(), model, captioner, decoder, batch_size)
