"""Training: cross-entropy on the reference captions, then self-critical training on CIDEr-D."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import Checkpoint, save_checkpoint
from model.cider import CiderD
from model.config import TrainingConfig, read_config
from model.dataset import CaptionedImage, read_captions, select
from model.encoder import load_pretrained
from model.errors import TrainingError
from model.features import feature_table
from model.network import CaptionNetwork, NetworkShape
from model.objectives import cross_entropy_loss, self_critical_loss
from model.progress import Progress, console_progress
from model.sampling import draw
from model.tokenizer import END, Tokenizer
from model.training_data import Split, batches, make_split, plain_batches, usable
from model.training_state import TrainingState, average_of, restore_state, save_state

_DEV_BATCH = 64


@dataclass
class _Run:
    config: TrainingConfig
    output: Path
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
    for epoch in range(first, settings.cross_entropy.epochs + settings.self_critical.epochs + 1):
        _epoch(run, state, epoch)
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
    features = feature_table(
        images,
        [photo.name for photo in photos],
        settings.encoder.name,
        output,
        flipped=settings.encoder.flipped,
        on_progress=lambda done, total: report(Progress("features", done, total)),
    )
    train_split, dev = (make_split(features, photos, split, tokenizer) for split in ("train", "dev"))
    identity = json.dumps([dataclasses.asdict(settings), tokenizer.vocabulary, [p.name for p in photos]])
    notes = _notes(images, captions, config, output, train_split, dev)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return _Run(settings, output, tokenizer, train_split, dev, notes, digest, report)


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
    _, _, positions, channels = run.train.features.shape
    shape = NetworkShape(len(run.tokenizer), positions, channels, **sizes)
    network = CaptionNetwork(shape, dropout)
    state = TrainingState(network, average_of(network), _optimizer(run.config, network))
    path = run.output / "state.safetensors"
    if resume and path.exists():
        restore_state(state, path, run.identity)
    return state


def _optimizer(config: TrainingConfig, network: CaptionNetwork) -> torch.optim.AdamW:
    weight_decay = config.cross_entropy.weight_decay
    return torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=weight_decay)


def _epoch(run: _Run, state: TrainingState, epoch: int) -> None:
    # Seeded by epoch, so that a resumed run draws what the unbroken one would have drawn.
    seed = run.config.seed * 100_003 + epoch
    torch.manual_seed(seed)
    state.network.dropout.pool = None
    began = time.monotonic()
    first_critical = run.config.cross_entropy.epochs + 1
    if epoch == first_critical:
        state.adopt_average()
        state.optimizer = _optimizer(run.config, state.network)
    steps = _critical_steps if epoch >= first_critical else _cross_entropy_steps
    losses = list(steps(run, state, epoch, random.Random(seed)))  # noqa: S311 - an order, not a secret
    row: dict[str, Any] = {
        "epoch": epoch,
        "phase": "self_critical" if epoch >= first_critical else "cross_entropy",
    }
    row |= {"train_loss": round(sum(losses) / len(losses), 4), **_dev_scores(run, state)}
    row["seconds"] = round(time.monotonic() - began)
    state.history.append(row)
    _keep(run, state)


def _rate(peak: float, step: int, total: int, warmup: int) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))))


def _advance(state: TrainingState, loss: torch.Tensor, rate: float, decay: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    state.follow(decay)


def _cross_entropy_steps(
    run: _Run, state: TrainingState, epoch: int, order: random.Random
) -> Iterator[float]:
    config = run.config.cross_entropy
    count = -(-len(run.train) // config.batch_images)
    warmup = min(config.warmup_steps, config.epochs * count // 5)
    state.network.train()
    for number, batch in enumerate(batches(run.train, config.batch_images, config.captions_per_image, order)):
        loss = cross_entropy_loss(state.network, batch.features, batch.captions, config.label_smoothing)
        step = (epoch - 1) * count + number
        rate = _rate(config.learning_rate, step, config.epochs * count, warmup)
        # Early on the average follows faster, so that it does not remember the random start.
        _advance(state, loss, rate, min(config.average, (1 + step) / (10 + step)))
        run.report(Progress(f"epoch {epoch}", number + 1, count, f"loss {loss.item():.3f}"))
        yield loss.item()


def _critical_steps(run: _Run, state: TrainingState, epoch: int, order: random.Random) -> Iterator[float]:
    config = run.config.self_critical
    count = -(-len(run.train) // config.batch_images)
    reward = _reward(run.train)
    past = (epoch - run.config.cross_entropy.epochs - 1) * count
    for number, batch in enumerate(batches(run.train, config.batch_images, 1, order)):
        state.network.eval()
        length = run.config.decoding.max_length
        samples = draw(state.network, batch.features, config.samples, length, config.temperature)
        scores = [
            [reward.score(image, _closed(sample, length)) for sample in drawn]
            for image, drawn in zip(batch.numbers, samples, strict=True)
        ]
        loss = self_critical_loss(state.network, batch, samples, torch.tensor(scores), config, length)
        rate = _rate(config.learning_rate, past + number, config.decay_epochs * count, 20)
        _advance(state, loss, rate, config.average)
        mean = sum(map(sum, scores)) / (len(scores) * config.samples)
        run.report(Progress(f"epoch {epoch}", number + 1, count, f"reward {mean:.3f}"))
        yield -mean


def _closed(tokens: list[int], length: int) -> list[int]:
    # The end token counts as a word of the reward, else captions learn to stop in the middle.
    return [*tokens, END] if len(tokens) < length else tokens


def _reward(split: Split) -> CiderD:
    return CiderD([[[*caption, END] for caption in image] for image in split.captions])


def _dev_scores(run: _Run, state: TrainingState) -> dict[str, float]:
    network = CaptionNetwork(state.network.shape).eval()
    network.load_state_dict(state.average)
    reward = _reward(run.dev)
    loss, score = 0.0, 0.0
    for numbers, features in plain_batches(run.dev, _DEV_BATCH):
        captions = [run.dev.captions[n][:1] for n in numbers]
        with torch.no_grad():
            loss += cross_entropy_loss(network, features, captions, 0.0).item() * len(numbers)
        drawn = draw(network, features, 1, run.config.decoding.max_length, None)
        score += sum(reward.score(n, [*tokens, END]) for n, (tokens,) in zip(numbers, drawn, strict=True))
        run.report(Progress("dev", numbers[-1] + 1, len(run.dev)))
    return {"dev_loss": round(loss / len(run.dev), 4), "dev_cider_d": round(score / len(run.dev), 4)}


def _keep(run: _Run, state: TrainingState) -> None:
    row = state.history[-1]
    if row["dev_cider_d"] >= max(entry["dev_cider_d"] for entry in state.history):
        network = CaptionNetwork(state.network.shape).eval()
        network.load_state_dict(state.average)
        notes = run.notes | {"epoch": row["epoch"], "training": list(state.history)}
        name = run.config.encoder.name
        decoding = dataclasses.asdict(run.config.decoding)
        found = Checkpoint(
            run.config.name, name, load_pretrained(name), network, run.tokenizer, decoding, notes
        )
        save_checkpoint(found, run.output / "checkpoint")
    save_state(state, run.output / "state.safetensors", run.identity)
    with (run.output / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(state.history)
    run.report(
        Progress(f"epoch {row['epoch']}", 1, 1, ", ".join(f"{key} {value}" for key, value in row.items()))
    )
