"""Training: from photos and captions to a checkpoint, through the phases of a configuration."""

from __future__ import annotations

import copy
import csv
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import Checkpoint, save_checkpoint
from model.config import CrossEntropyConfig, RecurrentConfig, read_config
from model.curve import training_curve
from model.dataset import read_captions, select
from model.disk import writing
from model.network import NetworkShape
from model.networks import Shape, build_network
from model.objectives import cross_entropy_loss
from model.progress import Progress, console_progress
from model.recurrent import RecurrentShape
from model.reward import Reward
from model.sampling import draw
from model.starting_point import adopt_weights, grown
from model.trained_captioner import TrainedCaptioner, make_top
from model.training_data import plain_batches
from model.training_phases import START, Phase, merged, phase_reward, steps
from model.training_setup import Run, Source, prepare, usable_device
from model.training_state import TrainingState, average_of, make_optimizer, restore_state, save_state

_DEV_BATCH = 64


def train(
    images: Path,
    captions: Path,
    config: str,
    output: Path,
    *,
    resume: bool = True,
    start: str | None = None,
    weights: str | None = None,
    device: str = "cpu",
    half: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train on the train split, choose the epoch on dev; return the checkpoint folder, ``output/checkpoint``.

    A run that was killed goes on from its last whole epoch, with the same result, unless not ``resume``.
    ``start`` and ``weights`` as in ``Source``; ``half`` computes in bfloat16. Raises ``TrainingError`` with
    what to mend, ``CheckpointInvalid`` if ``start`` cannot be used.
    """
    source = Source(images, captions, config, start, weights)
    settings = read_config(config)
    photos = read_captions(captions, images)
    for split in ("train", "dev"):
        select(photos, split)
    report = on_progress or console_progress()
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        run = prepare(settings, photos, source, output, report, usable_device(device), half, resume)
        state = _start(run, resume)
        for phase in run.phases:
            _train_phase(run, state, phase)
        _merge(run, state)
    report(Progress("finished", 1, 1, f"checkpoint in {output / 'checkpoint'}"))
    return output / "checkpoint"


def _start(run: Run, resume: bool) -> TrainingState:
    torch.manual_seed(run.config.seed)
    network = build_network(_shape(run), run.config.network.dropout)
    if run.start:
        adopt_weights(network, run.start.network)
    learns = any(phase.settings.encoder_learning_rate for phase in run.phases)
    top = make_top(run.encoder, run.config.encoder.cache, learns=learns)
    captioner = TrainedCaptioner(top, network, half=run.half).to(run.device)
    state = TrainingState(captioner, average_of(captioner), make_optimizer(captioner))
    if resume and run.state_path.exists():
        restore_state(state, run.state_path, run.identity)
    elif any(phase.origin == START for phase in run.phases):
        state.keep_average(_kept(run, START))
    return state


def _shape(run: Run) -> Shape:
    if run.start:
        return grown(run.start.network.shape, len(run.tokenizer))
    sizes = dataclasses.asdict(run.config.network)
    del sizes["dropout"]
    seen = len(run.tokenizer), run.encoder.positions, run.encoder.channels
    if isinstance(run.config.network, RecurrentConfig):
        del sizes["kind"]
        return RecurrentShape(*seen, **sizes)
    return NetworkShape(*seen, **sizes)


def _train_phase(run: Run, state: TrainingState, phase: Phase) -> None:
    if phase.ended(state.history):
        return
    reward = phase_reward(phase, run.train, run.tokenizer, run.config.decoding.max_length)
    while not phase.ended(state.history):
        _epoch(run, state, phase, reward)


def _epoch(run: Run, state: TrainingState, phase: Phase, reward: Reward | None) -> None:
    epoch = len(state.history) + 1
    # Seeded by epoch, so that a resumed run draws what the unbroken one would have drawn.
    torch.manual_seed(run.config.seed * 100_003 + epoch)
    state.captioner.network.dropout.pool = None
    began = time.monotonic()
    if phase.origin and not phase.past(state.history):
        state.adopt([_kept(run, phase.origin)])
        state.optimizer = make_optimizer(state.captioner)
    settings = phase.settings if isinstance(phase.settings, CrossEntropyConfig) else run.config.cross_entropy
    state.set_weight_decay(settings.weight_decay)
    losses = list(steps(phase, epoch, state, run.train, reward, run.config, run.report))
    row: dict[str, Any] = {"epoch": epoch, "phase": phase.name}
    row |= {"train_loss": round(sum(losses) / len(losses), 4), **_dev_scores(run, state)}
    row["seconds"] = round(time.monotonic() - began)
    state.history.append(row)
    if phase.name in (*merged(run.phases), *(other.origin for other in run.phases)):
        state.keep_average(_kept(run, phase.name))
    _keep(run, state)


def _merge(run: Run, state: TrainingState) -> None:
    origins = merged(run.phases)
    if not origins or state.history[-1]["phase"] == "merged":
        return
    state.adopt([_kept(run, origin) for origin in origins])
    epoch = state.history[-1]["epoch"] + 1
    unknown = {"train_loss": None, "seconds": None}
    state.history.append({"epoch": epoch, "phase": "merged", **_dev_scores(run, state), **unknown})
    _keep(run, state)


def _kept(run: Run, phase: str) -> Path:
    return run.output / f"{phase}.safetensors"


def _dev_scores(run: Run, state: TrainingState) -> dict[str, float]:
    captioner = state.averaged()
    length = run.config.decoding.max_length
    loss, score = 0.0, 0.0
    for numbers, cached in plain_batches(run.dev, _DEV_BATCH):
        captions = [run.dev.captions[n][:1] for n in numbers]
        with torch.no_grad(), captioner.computing():
            features = captioner.features(cached)
            loss += cross_entropy_loss(captioner.network, features, captions, 0.0).item() * len(numbers)
            drawn = draw(captioner.network, features, 1, length, None)
        score += sum(run.dev_reward.score(n, tokens) for n, (tokens,) in zip(numbers, drawn, strict=True))
        run.report(Progress("dev", numbers[-1] + 1, len(run.dev)))
    return {"dev_loss": round(loss / len(run.dev), 4), "dev_cider_d": round(score / len(run.dev), 4)}


def _keep(run: Run, state: TrainingState) -> None:
    row = state.history[-1]
    best = row["dev_cider_d"] >= max(entry["dev_cider_d"] for entry in state.history)
    # A run that is to end with a mean does: an epoch of a phase that lets phrases repeat may score higher.
    if best or row["phase"] == "merged":
        captioner = state.averaged().cpu()
        encoder = copy.deepcopy(run.encoder).cpu()
        captioner.write_to(encoder)
        notes = run.notes | {"epoch": row["epoch"], "training": list(state.history)}
        name = run.config.encoder.name
        decoding = dataclasses.asdict(run.config.decoding)
        found = Checkpoint(run.config.name, name, encoder, captioner.network, run.tokenizer, decoding, notes)
        save_checkpoint(found, run.output / "checkpoint")
    with (run.output / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(state.history[0]))
        writer.writeheader()
        writer.writerows(state.history)
    (run.output / "curve.svg").write_text(training_curve(state.history), encoding="utf-8")
    # Last, for a run that goes on from here does not come back to write the rest.
    save_state(state, run.state_path, run.identity)
    known = ", ".join(f"{key} {value}" for key, value in row.items() if value is not None)
    run.report(Progress(f"epoch {row['epoch']}", 1, 1, known))
