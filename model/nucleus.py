"""Nucleus sampling (Holtzman et al., ICLR 2020) over a batch of images, next to beam search.

The chances come from the seed and the image alone, so the same seed says the same of the same image,
whatever is captioned beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.decoding import Flags, Floats, Hypothesis, Ids, NextWords, StepModel, WordRules, allowed_next
from model.tokenizer import PAD, START


@dataclass(frozen=True)
class SampleOptions:
    """Resolved choices; lengths are in words."""

    num_captions: int
    max_length: int
    min_length: int
    top_p: float
    temperature: float


@dataclass
class _Samples:
    """The captions in progress: which image each row is, its tokens, sums of log-probabilities, the ended."""

    images: Ids
    tokens: Ids
    sums: Floats
    ended: Flags


def image_seeds(images: NDArray[np.uint8], seed: int) -> list[int]:
    """Mix a seed with every image's bytes."""
    return [zlib.crc32(np.ascontiguousarray(image).data, seed) for image in images]


def sample(
    model: StepModel, seeds: Sequence[int], options: SampleOptions, rules: WordRules | None
) -> list[list[Hypothesis]]:
    """Draw captions for as many images as there are seeds; distinct ones, likeliest first."""
    images, width = len(seeds), options.num_captions
    model.start(images, options.max_length + 1)
    chances = [np.random.default_rng(seed) for seed in seeds]
    drawn: list[list[Hypothesis]] = [[] for _ in seeds]
    following = model.step(np.full((images, 1), START, dtype=np.int64))
    following = NextWords(
        np.repeat(following.scores, width, 1),
        np.repeat(following.ids, width, 1),
        np.repeat(following.end, width, 1),
    )
    parents = np.zeros((images, width), dtype=np.int64)
    start = np.full((images, width, 1), START, dtype=np.int64)
    samples = _Samples(
        np.arange(images), start, np.zeros((images, width), np.float32), np.zeros((images, width), np.bool_)
    )
    while True:
        samples, alive = _advance(
            samples, following, [chances[i] for i in samples.images], options, rules, drawn
        )
        if not len(alive):
            return [sorted(dict.fromkeys(found), key=lambda h: -h.score) for found in drawn]
        model.reorder(alive, parents[alive])
        parents = np.tile(np.arange(width), (len(alive), 1))
        following = model.step(samples.tokens[:, :, -1])


def _advance(
    samples: _Samples,
    following: NextWords,
    chances: Sequence[np.random.Generator],
    options: SampleOptions,
    rules: WordRules | None,
    drawn: list[list[Hypothesis]],
) -> tuple[_Samples, Ids]:
    """Draw one token of every sample; return what goes on, and which rows of before that is."""
    said = samples.tokens.shape[2] - 1
    allowed, may_end = allowed_next(samples.tokens, following.ids, rules)
    stuck = ~allowed.any(-1) | (said == options.max_length)
    may_end = (may_end & (said >= options.min_length)) | stuck
    words = np.where(allowed & ~stuck[:, :, None], following.scores, -np.inf)
    scores = np.concatenate([words, np.where(may_end, following.end, -np.inf)[:, :, None]], 2)
    noise = np.stack([one.gumbel(size=scores.shape[1:]) for one in chances])
    choice = _draw(scores, noise, options)
    sums = samples.sums + np.take_along_axis(scores, choice[:, :, None], 2)[:, :, 0]
    ending = (choice == scores.shape[2] - 1) & ~samples.ended
    for row, number in np.argwhere(ending):
        found = tuple(int(token) for token in samples.tokens[row, number, 1:])
        drawn[samples.images[row]].append(Hypothesis(found, float(sums[row, number]) / (said + 1)))
    ended = samples.ended | ending
    ids = np.concatenate([following.ids, np.full((*choice.shape, 1), PAD)], 2)
    chosen = np.where(ended, PAD, np.take_along_axis(ids, choice[:, :, None], 2)[:, :, 0])
    tokens = np.concatenate([samples.tokens, chosen[:, :, None]], 2)
    alive = np.flatnonzero(~ended.all(1))
    return _Samples(samples.images[alive], tokens[alive], sums[alive], ended[alive]), alive


def _draw(scores: Floats, noise: NDArray[np.float64], options: SampleOptions) -> Ids:
    """Choose one of the last axis among the likeliest that together reach ``top_p``, by the Gumbel trick."""
    scaled = scores / options.temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    chance = np.exp(scaled)
    chance /= chance.sum(-1, keepdims=True)
    order = np.argsort(-chance, axis=-1, kind="stable")
    ranked = np.take_along_axis(chance, order, -1)
    kept = np.zeros(chance.shape, dtype=np.bool_)
    np.put_along_axis(kept, order, np.cumsum(ranked, -1) - ranked < options.top_p, -1)
    return np.asarray(np.where(kept, scaled + noise, -np.inf).argmax(-1))
