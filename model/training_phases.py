"""The phases of training: cross-entropy, fine-tuning with the encoder's upper part, self-critical."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.config import CrossEntropyConfig, SelfCriticalConfig, TrainingConfig
from model.english import UNFINISHED_ENDS
from model.errors import TrainingError
from model.objectives import cross_entropy_loss, self_critical_loss
from model.progress import Progress
from model.reward import Reward
from model.sampling import draw
from model.tokenizer import Tokenizer
from model.training_data import Split, batches
from model.training_state import TrainingState

_CRITICAL_WARMUP = 20


@dataclass(frozen=True)
class Phase:
    """One phase: its settings, how many epochs of other phases came before, and what it goes on from."""

    name: str
    settings: CrossEntropyConfig | SelfCriticalConfig
    before: int
    origin: str | None = None
    """The phase whose averaged weights it begins with."""

    def starts(self, epoch: int) -> bool:
        """Say whether an epoch, counted from 1 over all phases, is this phase's first."""
        return epoch == self.before + 1

    def stalled(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether the last ``patience`` epochs of this phase brought nothing better on dev."""
        found = [row["dev_cider_d"] for row in history if row["phase"] == self.name]
        patience = self.settings.patience
        return 0 < patience < len(found) and max(found[-patience:]) <= max(found[:-patience])


def phases(config: TrainingConfig) -> list[Phase]:
    """Return the phases of a configuration that have epochs, in order; ``merged`` says what comes after."""
    found: list[Phase] = []
    for name in ("cross_entropy", "untuned_critical", "fine_tune", "self_critical"):
        settings = getattr(config, name)
        if settings is None or not settings.epochs:
            continue
        if settings.encoder_learning_rate and config.encoder.cache == "features":
            raise TrainingError(
                f'[{name}] trains the encoder: that needs cache = "trunk" or "none" in [encoder]'
            )
        before = found[-1].before + found[-1].settings.epochs if found else 0
        found.append(Phase(name, settings, before, _origin(name, [phase.name for phase in found])))
    return found


def _origin(name: str, earlier: list[str]) -> str | None:
    if name == "fine_tune":
        return next((phase for phase in earlier if phase == "cross_entropy"), None)
    return earlier[-1] if earlier else None


def merged(found: list[Phase]) -> tuple[str, ...]:
    """Return the phases whose mean is the end of a run; none without ``untuned_critical``.

    Models that were trained apart from the same start err differently, and the mean of their weights
    generalises better than either (Wortsman et al., "Model soups", ICML 2022).
    """
    names = tuple(phase.name for phase in found if phase.name in ("untuned_critical", "self_critical"))
    return names if len(names) > 1 else ()


def steps(
    phase: Phase,
    epoch: int,
    state: TrainingState,
    data: Split,
    tokenizer: Tokenizer,
    config: TrainingConfig,
    report: Callable[[Progress], None],
) -> Iterator[float]:
    """Train one epoch of a phase; yield the loss of every step, for self-critical the reward negated."""
    state.captioner.top_learns = phase.settings.encoder_learning_rate > 0
    order = random.Random(config.seed * 100_003 + epoch)  # noqa: S311 - an order, not a secret
    past = epoch - phase.before - 1
    stage = f"epoch {epoch}"
    if isinstance(phase.settings, SelfCriticalConfig):
        reward = Reward(
            data.captions,
            config.decoding.max_length,
            unfinished=tokenizer.ids(UNFINISHED_ENDS),
            bleu=phase.settings.bleu,
            penalty=phase.settings.fluency_penalty,
        )
        length = config.decoding.max_length
        yield from _critical(phase.settings, past, stage, state, data, reward, length, order, report)
    else:
        dropout = config.network.dropout
        yield from _cross_entropy(phase.settings, past, stage, state, data, dropout, order, report)


def _cross_entropy(
    config: CrossEntropyConfig,
    past: int,
    stage: str,
    state: TrainingState,
    data: Split,
    dropout: float,
    order: random.Random,
    report: Callable[[Progress], None],
) -> Iterator[float]:
    count = -(-len(data) // config.batch_images)
    total = config.epochs * count
    warmup = min(config.warmup_steps, total // 5)
    captioner = state.captioner
    captioner.train()
    captioner.network.dropout.rate = dropout
    for number, batch in enumerate(batches(data, config.batch_images, config.captions_per_image, order)):
        with captioner.computing():
            features = captioner.features(batch.cached)
            loss = cross_entropy_loss(captioner.network, features, batch.captions, config.label_smoothing)
        step = past * count + number
        # Early on the average follows faster, so that it does not remember where it came from.
        decay = min(config.average, (1 + step) / (10 + step))
        state.advance(loss, _rates(config, step, total, warmup), decay)
        report(Progress(stage, number + 1, count, f"loss {loss.item():.3f}"))
        yield loss.item()


def _critical(
    config: SelfCriticalConfig,
    past: int,
    stage: str,
    state: TrainingState,
    data: Split,
    reward: Reward,
    length: int,
    order: random.Random,
    report: Callable[[Progress], None],
) -> Iterator[float]:
    count = -(-len(data) // config.batch_images)
    captioner = state.captioner
    captioner.eval()
    captioner.network.dropout.rate = config.dropout
    for number, batch in enumerate(batches(data, config.batch_images, 1, order)):
        with captioner.computing():
            features = captioner.features(batch.cached)
            samples = draw(captioner.network, features.detach(), config.samples, length, config.temperature)
        scores = [
            [reward.score(image, sample) for sample in drawn]
            for image, drawn in zip(batch.numbers, samples, strict=True)
        ]
        # Drawn without dropout, learned with it: rewards of training photos rise far above those of others.
        captioner.network.train(config.dropout > 0)
        with captioner.computing():
            loss = self_critical_loss(
                captioner.network, features, batch.captions, samples, torch.tensor(scores), config, length
            )
        captioner.network.eval()
        rates = _rates(config, past * count + number, config.decay_epochs * count, _CRITICAL_WARMUP)
        state.advance(loss, rates, config.average)
        mean = sum(map(sum, scores)) / (len(scores) * config.samples)
        report(Progress(stage, number + 1, count, f"reward {mean:.3f}"))
        yield -mean


def _rates(
    config: CrossEntropyConfig | SelfCriticalConfig, step: int, total: int, warmup: int
) -> tuple[float, float]:
    """Learning rates of network and encoder: a linear rise, then half a cosine down to a twentieth."""
    fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
    share = (step + 1) / warmup if step < warmup else fall
    return share * config.learning_rate, share * config.encoder_learning_rate
