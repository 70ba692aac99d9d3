"""What a training run works with: its source, data, encoder and words, read and checked before it begins."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import Checkpoint
from model.config import TrainingConfig
from model.dataset import CaptionedImage
from model.encoder import load_pretrained
from model.encoder_base import GridEncoder, weights_digest
from model.encoder_weights import encoder_licence
from model.errors import TrainingError
from model.features import image_cache
from model.live_pictures import LivePictures
from model.progress import Progress
from model.reward import Reward
from model.starting_point import joined_words, load_start
from model.tokenizer import Tokenizer
from model.trained_captioner import check_cache
from model.training_data import Pictures, Split, make_split, usable
from model.training_phases import Phase, phases
from model.training_state import read_history


@dataclass(frozen=True)
class Source:
    """What a run learns from and where it begins.

    ``start`` is a model to train on (as for ``load_captioner``), ``weights`` a file of encoder weights or
    ``random``; by default an encoder with its published weights and a fresh network.
    """

    images: Path
    captions: Path
    config: str
    start: str | None = None
    weights: str | None = None

    def command(self, output: Path) -> str:
        """Return the command line; folder names only, so as not to tell where someone keeps their files."""
        parts = ["captionfleet train", "--images", self.images.name, "--captions", self.captions.name]
        parts += ["--config", Path(self.config).stem, "--output", output.name]
        for option, value in (("--from", self.start), ("--encoder-weights", self.weights)):
            parts += [option, Path(value).name] if value else []
        return " ".join(parts)


@dataclass
class Run:
    """All that one training run works with; the checkpoint to train on, if any, is ``start``."""

    config: TrainingConfig
    output: Path
    phases: list[Phase]
    encoder: GridEncoder
    tokenizer: Tokenizer
    train: Split
    dev: Split
    notes: dict[str, Any]
    identity: str
    """Digest of all that determines the run: a stored state of another one is not gone on from."""
    report: Callable[[Progress], None]
    start: Checkpoint | None
    device: str
    half: bool

    @functools.cached_property
    def dev_reward(self) -> Reward:
        """What greedy captions of the dev split are scored by."""
        return Reward(self.dev.captions, self.config.decoding.max_length)

    @property
    def state_path(self) -> Path:
        """Where the state is kept that a killed run goes on from."""
        return _state_path(self.output)


def _state_path(output: Path) -> Path:
    return output / "state.safetensors"


def usable_device(device: str) -> str:
    """Return a device that torch can compute on; raise ``TrainingError`` if it is none."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"the device {device!r} cannot be used: {reason}") from error
    return device


def prepare(
    settings: TrainingConfig,
    photos: list[CaptionedImage],
    source: Source,
    output: Path,
    report: Callable[[Progress], None],
    device: str,
    half: bool,
    resume: bool,
) -> Run:
    """Read everything that a run needs, computing the cache of pictures; raises ``TrainingError``.

    A folder that holds another run's state is refused before anything in it is replaced, if to ``resume``.
    """
    start = load_start(source.start) if source.start else None
    texts = [text for photo in photos if photo.split == "train" for text in photo.captions]
    if start:
        settings = _like(settings, start)
        tokenizer = joined_words(start.tokenizer, texts, settings.tokenizer.min_count)
        encoder = start.encoder
    else:
        tokenizer = Tokenizer.build(texts, settings.tokenizer.min_count)
        encoder = load_pretrained(settings.encoder.name, source.weights)
    for split in ("train", "dev"):
        if not any(usable(photo, tokenizer) for photo in photos if photo.split == split):
            raise TrainingError(f"{source.captions}: {split} has no caption of three or more words")
    found = phases(settings)
    check_cache(encoder, settings.encoder.cache)
    identity = _identity(settings, tokenizer, photos, encoder, start, half)
    if resume and _state_path(output).exists():
        read_history(_state_path(output), identity)
    sources = _sources(settings, photos, source.images, encoder, output, report, device)
    train = make_split(sources[0], photos, "train", tokenizer)
    dev = make_split(sources[1], photos, "dev", tokenizer)
    notes = _notes(source, output, train, dev, start, settings.encoder.name)
    return Run(
        settings, output, found, encoder, tokenizer, train, dev, notes, identity, report, start, device, half
    )


def _like(settings: TrainingConfig, start: Checkpoint) -> TrainingConfig:
    """Return the settings with the encoder of the model to train on; its sizes are taken from it too."""
    return dataclasses.replace(
        settings, encoder=dataclasses.replace(settings.encoder, name=start.encoder_name)
    )


def _sources(
    settings: TrainingConfig,
    photos: list[CaptionedImage],
    images: Path,
    encoder: GridEncoder,
    output: Path,
    report: Callable[[Progress], None],
    device: str,
) -> tuple[Pictures, Pictures]:
    """Return where the train split and the dev split find their photos."""
    wanted = settings.encoder
    if wanted.cache == "none":
        names = [photo.name for photo in photos]
        varied, plain = (
            LivePictures(images, names, encoder.size, varied=v) for v in (wanted.views > 1, False)
        )
        return varied, plain
    cache = image_cache(
        images,
        photos,
        encoder,
        wanted.name,
        output,
        kind=wanted.cache,
        views=wanted.views,
        on_progress=lambda done, total: report(Progress("features", done, total)),
        device=device,
    )
    return cache, cache


def _identity(
    settings: TrainingConfig,
    tokenizer: Tokenizer,
    photos: list[CaptionedImage],
    encoder: GridEncoder,
    start: Checkpoint | None,
    half: bool,
) -> str:
    weights = [weights_digest(part) for part in (encoder, *([start.network] if start else []))]
    data = [dataclasses.astuple(photo) for photo in photos]
    parts = [settings.identity(), tokenizer.vocabulary, data, weights, half]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _notes(
    source: Source, output: Path, train_split: Split, dev: Split, start: Checkpoint | None, encoder: str
) -> dict[str, Any]:
    sizes = {"train_images": len(train_split), "dev_images": len(dev)}
    notes: dict[str, Any] = {
        "data": {"captions": source.captions.name, **sizes},
        "command": source.command(output),
        "code_version": importlib.metadata.version("captionfleet"),
    }
    if start:
        # The terms of the data that a model was trained on stay with what is made of it.
        notes["from"] = {"name": start.name, "notes": start.notes}
    else:
        notes["licences"] = {"encoder": encoder_licence(encoder)}
    return notes
