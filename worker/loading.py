"""A process's captioner, named by the settings."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import StartupError
from jobs.settings import Settings
from model.captioner import Captioner
from model.errors import CheckpointInvalid

if TYPE_CHECKING:
    from worker.pipeline import Serving

log = logging.getLogger(__name__)


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


def serving(model: str, captioner: Captioner) -> Serving:
    """Return what a pipeline of this process serves, under a new worker id."""
    from worker.pipeline import Serving

    host = socket.gethostname()[:40]
    return Serving(f"{host}-{secrets.token_hex(6)}", model, captioner)
