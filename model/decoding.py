"""Beam search over a batch of images, with repeat blocking; the one decoder of every captioner.

All images advance together, each with its beams. Finished images leave the batch, so that a long caption
does not make the others wait. Greedy decoding is a beam of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.tokenizer import END, START

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class NextWords:
    """The best next words of every beam, best first: log-probabilities and ids (images, beams, count)."""

    scores: Floats
    ids: Ids
    end: Floats
    """Log-probability of ending here, (images, beams)."""


class StepModel(Protocol):
    """A decoder that keeps what it said so far, beam by beam."""

    def start(self, images: int, length: int) -> None:
        """Forget everything; begin ``images`` captions of at most ``length`` tokens, one beam each."""
        ...

    def step(self, tokens: Ids) -> NextWords:
        """Append one token per beam (images, beams) and score what may follow."""
        ...

    def reorder(self, images: Ids, parents: Ids) -> None:
        """Keep some ``images`` of the batch; their beams go on from ``parents`` (images, beams)."""
        ...


@dataclass(frozen=True)
class SearchOptions:
    """Resolved decoding choices; lengths are in words."""

    num_beams: int
    num_captions: int
    max_length: int
    min_length: int
    length_penalty: float = 1.0
    """Captions are ranked by their summed log-probability / tokens ** length_penalty: more favours longer."""


@dataclass(frozen=True)
class WordRules:
    """What repeat blocking must know about the vocabulary: True at the ids of these words."""

    function: Flags
    """Articles, prepositions, auxiliaries…: pairs of them may repeat."""
    unfinished: Flags
    """Words that no caption ends with."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: its word ids and the mean log-probability of its tokens, end token included."""

    words: tuple[int, ...]
    score: float


@dataclass
class _Beams:
    """The captions in progress: which image each row is, its tokens, their sums of log-probabilities."""

    images: Ids
    tokens: Ids
    sums: Floats


def search(
    model: StepModel, images: int, options: SearchOptions, rules: WordRules | None
) -> list[list[Hypothesis]]:
    """Caption ``images`` images; up to ``num_captions`` hypotheses each; no rules, no blocking."""
    model.start(images, options.max_length + 1)
    finished: list[list[Hypothesis]] = [[] for _ in range(images)]
    start = np.full((images, 1, 1), START, dtype=np.int64)
    beams = _Beams(np.arange(images), start, np.zeros((images, 1), dtype=np.float32))
    while len(beams.images):
        following = model.step(beams.tokens[:, :, -1])
        beams = _advance(model, beams, following, finished, options, rules)
    return [found[: options.num_captions] for found in finished]


def _advance(
    model: StepModel,
    beams: _Beams,
    following: NextWords,
    finished: list[list[Hypothesis]],
    options: SearchOptions,
    rules: WordRules | None,
) -> _Beams:
    said = beams.tokens.shape[2] - 1
    allowed, may_end = allowed_next(beams.tokens, following.ids, rules)
    stuck = ~allowed.any(-1) | (said == options.max_length)
    may_end = (may_end & (said >= options.min_length)) | stuck
    go_on = np.where(allowed & ~stuck[:, :, None], following.scores, -np.inf) + beams.sums[:, :, None]
    ending = np.where(may_end, following.end, -np.inf) + beams.sums
    chosen, parents, ids, sums = _rank(go_on, ending, following.ids, options.num_beams)
    _finish(finished, beams, chosen, said, options)
    alive = np.flatnonzero(_alive(finished, beams.images, sums, said + 1, options))
    model.reorder(alive, parents[alive])
    history = np.take_along_axis(beams.tokens[alive], parents[alive][:, :, None], 1)
    return _Beams(beams.images[alive], np.concatenate([history, ids[alive][:, :, None]], 2), sums[alive])


def _rank(go_on: Floats, ending: Floats, ids: Ids, width: int) -> tuple[Floats, Ids, Ids, Floats]:
    """Choose per image the ``width`` best continuations, and the endings among the ``width`` best of all.

    Returns the sums of the chosen endings (else -inf), and parents, ids and sums of the continuations.
    """
    images, _, count = go_on.shape
    flat = go_on.reshape(images, -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :width]
    sums = np.take_along_axis(flat, order, 1)
    both = np.concatenate([sums, ending], 1)
    threshold = -np.sort(-both, axis=1)[:, min(width, both.shape[1]) - 1]
    chosen = np.where(ending >= threshold[:, None], ending, -np.inf)
    return chosen, order // count, np.take_along_axis(ids.reshape(images, -1), order, 1), sums


def _finish(
    finished: list[list[Hypothesis]], beams: _Beams, chosen: Floats, said: int, options: SearchOptions
) -> None:
    for row, beam in np.argwhere(np.isfinite(chosen)):
        words = tuple(int(token) for token in beams.tokens[row, beam, 1:])
        found = finished[beams.images[row]]
        found.append(Hypothesis(words, float(chosen[row, beam]) / (said + 1)))
        found.sort(key=lambda h: -_merit(h, options.length_penalty))
        del found[options.num_beams :]


def _merit(hypothesis: Hypothesis, length_penalty: float) -> float:
    """What captions are ranked by; the score itself where the length penalty is 1."""
    length = float(len(hypothesis.words) + 1)
    return hypothesis.score * math.pow(length, 1 - length_penalty)


def _alive(
    finished: list[list[Hypothesis]], images: Ids, sums: Floats, length: int, options: SearchOptions
) -> Flags:
    """Say which images may still find something better than the ``num_beams`` captions they have."""
    best = sums.max(1) / float(length) ** options.length_penalty
    full = [len(finished[i]) >= options.num_beams for i in images]
    merits = [_merit(finished[i][-1], options.length_penalty) if finished[i] else 0.0 for i in images]
    return np.asarray(best > np.where(full, merits, -np.inf))


def allowed_next(tokens: Ids, ids: Ids, rules: WordRules | None) -> tuple[Flags, Flags]:
    """Say which next words (images, beams, count) are allowed, and which captions may end here.

    Not allowed: a word twice in a row, two content words a second time, any three words a second time.
    """
    last = tokens[:, :, -1]
    allowed = ids != END
    if rules is None:
        return allowed, np.ones(last.shape, dtype=np.bool_)
    allowed &= ids != last[:, :, None]
    if tokens.shape[2] > 2:
        allowed &= ~_repeats(tokens, ids, rules)
    return allowed, ~rules.unfinished[last]


def _repeats(tokens: Ids, ids: Ids, rules: WordRules) -> Flags:
    last = tokens[:, :, -1]
    again = tokens[:, :, :-1] == last[:, :, None]
    follows = again[:, :, None, :] & (tokens[:, :, None, 1:] == ids[:, :, :, None])
    content = ~rules.function[last][:, :, None] & ~rules.function[ids]
    triple = follows[..., 1:] & (tokens[:, :, :-2] == tokens[:, :, -2:-1])[:, :, None, :]
    return np.asarray((follows.any(-1) & content) | triple.any(-1))
