"""A process's captioner, named by the settings."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from pathlib import Path

from jobs.errors import StartupError
from jobs.settings import Settings
from model.captioner import Captioner
from model.errors import CheckpointInvalid
from worker.pipeline import Serving

log = logging.getLogger(__name__)


def load_model(settings: Settings, model: str) -> Captioner:
    """Load a model of the settings onto their device; raise ``StartupError`` checkpoint_invalid."""
    from model.loading import load_captioner

    started = time.monotonic()
    cache = _cache_folder(settings)
    try:
        captioner = load_captioner(
            settings.model_path(model), settings.device, cache_dir=cache, threads=settings.threads
        )
    except CheckpointInvalid as error:
        raise StartupError("checkpoint_invalid", str(error)) from error
    seconds = time.monotonic() - started
    log.info("loaded %s (%s) on %s in %.1f s", model, captioner.name, captioner.device, seconds)
    return captioner


def _cache_folder(settings: Settings) -> Path | None:
    """Return where compiled models are kept, ``None`` where nothing can be (a read-only container)."""
    folder = settings.data_dir / "cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.info("compiled models are not kept: %s", error)
        return None
    return folder if os.access(folder, os.W_OK) else None


def serving(model: str, captioner: Captioner) -> Serving:
    """Return what a pipeline of this process serves, under a new worker id."""
    host = socket.gethostname()[:40]
    return Serving(f"{host}-{secrets.token_hex(6)}", model, captioner)
