"""The two training losses."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from model.config import SelfCriticalConfig
from model.network import pack
from model.networks import Network
from model.tokenizer import UNKNOWN

_TOKENS = 24
"""Longer references are cut: one long caption would stretch the padding of the whole batch."""


def cross_entropy_loss(
    network: Network, features: Tensor, captions: list[list[list[int]]], smoothing: float
) -> Tensor:
    """Mean loss per token of the reference captions; unknown words are read but never to be said."""
    inputs, targets, packing = pack(captions, _TOKENS, features.device)
    scores = network(network.grid(features), inputs, packing)
    return functional.cross_entropy(scores, targets, ignore_index=UNKNOWN, label_smoothing=smoothing)


def self_critical_loss(
    network: Network,
    features: Tensor,
    references: list[list[list[int]]],
    samples: list[list[list[int]]],
    rewards: Tensor,
    config: SelfCriticalConfig,
    length: int,
) -> Tensor:
    """Self-critical loss (Rennie et al., CVPR 2017) with the mean of the other samples as the baseline.

    references: one per image, of which a small cross-entropy term keeps the language sound; samples: token
    ids per image and sample; rewards (images, samples).
    """
    joined = [[*drawn, *reference] for drawn, reference in zip(samples, references, strict=True)]
    inputs, targets, packing = pack(joined, length, features.device)
    scores = network(network.grid(features), inputs, packing)
    rows = packing.index // packing.length % (config.samples + 1)
    reference = rows == config.samples
    rewards = rewards.to(features.device)
    gain = (rewards - rewards.mean(1, keepdim=True)) * config.samples / max(config.samples - 1, 1)
    weight = functional.pad(gain, (0, 1)).flatten()[packing.index // packing.length]
    said = ~reference
    chances = (scores[said] / config.temperature).log_softmax(-1)
    chosen = chances.gather(1, targets[said].unsqueeze(1)).squeeze(1)
    critical: Tensor = -(chosen * weight[said]).mean()
    fluent = functional.cross_entropy(scores[reference], targets[reference], ignore_index=UNKNOWN)
    return critical + config.cross_entropy * fluent
