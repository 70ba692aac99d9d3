"""Training: cross-entropy on the reference captions, then self-critical training on CIDEr-D."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import Checkpoint, save_checkpoint
from model.config import TrainingConfig, read_config
from model.dataset import CaptionedImage, read_captions, select
from model.encoder import load_pretrained
from model.encoder_base import GridEncoder
from model.errors import TrainingError
from model.features import image_cache
from model.network import CaptionNetwork, NetworkShape
from model.objectives import cross_entropy_loss
from model.progress import Progress, console_progress
from model.reward import Reward
from model.sampling import draw
from model.tokenizer import Tokenizer
from model.trained_captioner import TrainedCaptioner, make_top
from model.training_data import Split, make_split, plain_batches, usable
from model.training_phases import Phase, phases, steps
from model.training_state import TrainingState, average_of, make_optimizer, restore_state, save_state

_DEV_BATCH = 64


@dataclass
class _Run:
    config: TrainingConfig
    output: Path
    phases: list[Phase]
    encoder: GridEncoder
    tokenizer: Tokenizer
    train: Split
    dev: Split
    notes: dict[str, Any]
    identity: str
    report: Callable[[Progress], None]


def train(
    images: Path,
    captions: Path,
    config: str,
    output: Path,
    *,
    resume: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train on the train split, choose the epoch on dev; return the checkpoint folder, ``output/checkpoint``.

    A run that was killed goes on from its last whole epoch, with the same result, unless not ``resume``.
    Raises ``TrainingError`` with what to mend.
    """
    settings = read_config(config)
    photos = read_captions(captions, images)
    for split in ("train", "dev"):
        select(photos, split)
    output.mkdir(parents=True, exist_ok=True)
    report = on_progress or console_progress()
    run = _prepare(settings, photos, images, captions, config, output, report)
    state = _start(run, resume)
    first = len(state.history) + 1
    for phase in run.phases:
        for epoch in range(max(first, phase.before + 1), phase.before + phase.settings.epochs + 1):
            _epoch(run, state, phase, epoch)
    report(Progress("finished", 1, 1, f"checkpoint in {output / 'checkpoint'}"))
    return output / "checkpoint"


def _prepare(
    settings: TrainingConfig,
    photos: list[CaptionedImage],
    images: Path,
    captions: Path,
    config: str,
    output: Path,
    report: Callable[[Progress], None],
) -> _Run:
    texts = [text for photo in photos if photo.split == "train" for text in photo.captions]
    tokenizer = Tokenizer.build(texts, settings.tokenizer.min_count)
    for split in ("train", "dev"):
        if not any(usable(photo, tokenizer) for photo in photos if photo.split == split):
            raise TrainingError(f"{captions}: {split} has no caption of three or more words")
    encoder = load_pretrained(settings.encoder.name)
    cache = image_cache(
        images,
        photos,
        encoder,
        settings.encoder.name,
        output,
        kind=settings.encoder.cache,
        views=settings.encoder.views,
        on_progress=lambda done, total: report(Progress("features", done, total)),
    )
    train_split, dev = (make_split(cache, photos, split, tokenizer) for split in ("train", "dev"))
    identity = json.dumps([dataclasses.asdict(settings), tokenizer.vocabulary, [p.name for p in photos]])
    notes = _notes(images, captions, config, output, train_split, dev)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return _Run(
        settings, output, phases(settings), encoder, tokenizer, train_split, dev, notes, digest, report
    )


def _notes(
    images: Path, captions: Path, config: str, output: Path, train_split: Split, dev: Split
) -> dict[str, Any]:
    # Folder names only: a published checkpoint should not tell where someone keeps their files.
    command = (
        f"captionfleet train --images {images.name} --captions {captions.name} "
        f"--config {Path(config).stem} --output {output.name}"
    )
    return {
        "data": {"captions": captions.name, "train_images": len(train_split), "dev_images": len(dev)},
        "command": command,
        "code_version": importlib.metadata.version("captionfleet"),
    }


def _start(run: _Run, resume: bool) -> TrainingState:
    torch.manual_seed(run.config.seed)
    sizes = dataclasses.asdict(run.config.network)
    dropout = sizes.pop("dropout")
    shape = NetworkShape(len(run.tokenizer), run.encoder.positions, run.encoder.channels, **sizes)
    top = make_top(run.encoder, run.config.encoder.cache)
    captioner = TrainedCaptioner(top, CaptionNetwork(shape, dropout))
    state = TrainingState(captioner, average_of(captioner), _optimizer(run, captioner))
    path = run.output / "state.safetensors"
    if resume and path.exists():
        restore_state(state, path, run.identity)
    return state


def _optimizer(run: _Run, captioner: TrainedCaptioner) -> torch.optim.AdamW:
    return make_optimizer(captioner, run.config.cross_entropy.weight_decay)


def _epoch(run: _Run, state: TrainingState, phase: Phase, epoch: int) -> None:
    # Seeded by epoch, so that a resumed run draws what the unbroken one would have drawn.
    torch.manual_seed(run.config.seed * 100_003 + epoch)
    state.captioner.network.dropout.pool = None
    began = time.monotonic()
    if phase.starts(epoch) and phase.before:
        state.adopt_average()
        state.optimizer = _optimizer(run, state.captioner)
    losses = list(steps(phase, epoch, state, run.train, run.tokenizer, run.config, run.report))
    row: dict[str, Any] = {"epoch": epoch, "phase": phase.name}
    row |= {"train_loss": round(sum(losses) / len(losses), 4), **_dev_scores(run, state)}
    row["seconds"] = round(time.monotonic() - began)
    state.history.append(row)
    _keep(run, state)


def _dev_scores(run: _Run, state: TrainingState) -> dict[str, float]:
    captioner = state.averaged()
    length = run.config.decoding.max_length
    reward = Reward(run.dev.captions, length)
    loss, score = 0.0, 0.0
    for numbers, cached in plain_batches(run.dev, _DEV_BATCH):
        captions = [run.dev.captions[n][:1] for n in numbers]
        with torch.no_grad():
            features = captioner.features(cached)
            loss += cross_entropy_loss(captioner.network, features, captions, 0.0).item() * len(numbers)
        drawn = draw(captioner.network, features, 1, length, None)
        score += sum(reward.score(n, tokens) for n, (tokens,) in zip(numbers, drawn, strict=True))
        run.report(Progress("dev", numbers[-1] + 1, len(run.dev)))
    return {"dev_loss": round(loss / len(run.dev), 4), "dev_cider_d": round(score / len(run.dev), 4)}


def _keep(run: _Run, state: TrainingState) -> None:
    row = state.history[-1]
    if row["dev_cider_d"] >= max(entry["dev_cider_d"] for entry in state.history):
        captioner = state.averaged()
        encoder = load_pretrained(run.config.encoder.name)
        captioner.write_to(encoder)
        notes = run.notes | {"epoch": row["epoch"], "training": list(state.history)}
        name = run.config.encoder.name
        decoding = dataclasses.asdict(run.config.decoding)
        found = Checkpoint(run.config.name, name, encoder, captioner.network, run.tokenizer, decoding, notes)
        save_checkpoint(found, run.output / "checkpoint")
    save_state(state, run.output / "state.safetensors", run.identity)
    with (run.output / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(state.history)
    run.report(
        Progress(f"epoch {row['epoch']}", 1, 1, ", ".join(f"{key} {value}" for key, value in row.items()))
    )
