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
START = "start"
"""Names the weights that a run began with, where a phase is called for."""


@dataclass(frozen=True)
class Phase:
    """One phase: its settings and what it goes on from."""

    name: str
    settings: CrossEntropyConfig | SelfCriticalConfig
    origin: str | None = None
    """The phase, or ``START``, whose averaged weights it begins with; None for the first phase."""

    def past(self, history: Sequence[Mapping[str, Any]]) -> int:
        """Return how many epochs of this phase a run has behind it."""
        return sum(row["phase"] == self.name for row in history)

    def ended(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether all epochs are done, or the last ``patience`` ones brought nothing better on dev."""
        found = [row["dev_cider_d"] for row in history if row["phase"] == self.name]
        patience = self.settings.patience
        stalled = 0 < patience < len(found) and max(found[-patience:]) <= max(found[:-patience])
        return stalled or len(found) >= self.settings.epochs


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
        found.append(Phase(name, settings, _origin(name, [phase.name for phase in found])))
    if not found:
        raise TrainingError(f"{config.name} has no phase with epochs: there is nothing to train")
    return found


def _origin(name: str, earlier: list[str]) -> str | None:
    if name == "fine_tune" and earlier:
        # Apart from ``untuned_critical``, whose model it is to be averaged with.
        return earlier[0] if earlier[0] == "cross_entropy" else START
    return earlier[-1] if earlier else None


def merged(found: list[Phase]) -> tuple[str, ...]:
    """Return the phases whose mean is the end of a run; none without ``untuned_critical``.

    Models that were trained apart from the same start err differently, and the mean of their weights
    generalises better than either (Wortsman et al., "Model soups", ICML 2022).
    """
    names = tuple(phase.name for phase in found if phase.name in ("untuned_critical", "self_critical"))
    return names if len(names) > 1 else ()


def phase_reward(phase: Phase, data: Split, tokenizer: Tokenizer, length: int) -> Reward | None:
    """Make what a self-critical phase scores captions of up to ``length`` words by; None for other phases."""
    if not isinstance(phase.settings, SelfCriticalConfig):
        return None
    return Reward(
        data.captions,
        length,
        unfinished=tokenizer.ids(UNFINISHED_ENDS),
        bleu=phase.settings.bleu,
        penalty=phase.settings.fluency_penalty,
    )


def steps(
    phase: Phase,
    epoch: int,
    state: TrainingState,
    data: Split,
    reward: Reward | None,
    config: TrainingConfig,
    report: Callable[[Progress], None],
) -> Iterator[float]:
    """Train one epoch of a phase; yield the loss of every step, for self-critical the reward negated.

    ``epoch`` counts from 1 over all phases; ``reward`` is what ``phase_reward`` made.
    """
    state.captioner.top_learns = phase.settings.encoder_learning_rate > 0
    order = random.Random(config.seed * 100_003 + epoch)  # noqa: S311 - an order, not a secret
    past = phase.past(state.history)
    stage = f"epoch {epoch}"
    if isinstance(phase.settings, SelfCriticalConfig):
        assert reward is not None
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
    """Learning rates of network and encoder: a linear rise, half a cosine down to a twentieth, then that."""
    span = max(total - warmup, 1)
    fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(step - warmup, span) / span))
    share = (step + 1) / warmup if step < warmup else fall
    return share * config.learning_rate, share * config.encoder_learning_rate
