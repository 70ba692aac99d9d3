"""CIDEr-D (Vedantam et al., CVPR 2015) over token sequences: the reward of self-critical training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_ORDERS = 4
_SIGMA = 6.0

Tokens = Sequence[Hashable]
Grams = Counter[tuple[Hashable, ...]]


@dataclass(frozen=True)
class _Vector:
    weights: tuple[dict[tuple[Hashable, ...], float], ...]
    norms: tuple[float, ...]
    length: int


def _grams(tokens: Tokens) -> list[Grams]:
    return [
        Counter(tuple(tokens[at : at + order]) for at in range(len(tokens) - order + 1))
        for order in range(1, _ORDERS + 1)
    ]


class CiderD:
    """Scores captions against their image's references, which are also the corpus of the word weights."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        """Take the reference captions of every image of the corpus."""
        grams = [[_grams(tokens) for tokens in image] for image in references]
        documents: Grams = Counter()
        for image in grams:
            documents.update({gram for caption in image for order in caption for gram in order})
        self._log_images = math.log(max(len(references), 2))
        self._log_documents = {gram: math.log(count) for gram, count in documents.items()}
        self._references = [[self._vector(caption) for caption in image] for image in grams]

    def _vector(self, orders: list[Grams]) -> _Vector:
        weights = tuple(
            {g: n * (self._log_images - self._log_documents.get(g, 0.0)) for g, n in grams.items()}
            for grams in orders
        )
        norms = tuple(math.sqrt(sum(value * value for value in order.values())) for order in weights)
        return _Vector(weights, norms, sum(orders[0].values()))

    def score(self, image: int, tokens: Tokens) -> float:
        """Return the CIDEr-D of one caption for image number ``image``, on the usual scale of 0 to 10."""
        candidate = self._vector(_grams(tokens))
        references = self._references[image]
        return 10 * sum(_similarity(candidate, reference) for reference in references) / len(references)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    total = 0.0
    for mine, theirs, norm, other in zip(
        candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True
    ):
        if norm and other:
            common = sum(min(value, theirs[g]) * theirs[g] for g, value in mine.items() if g in theirs)
            total += common / (norm * other)
    gap = candidate.length - reference.length
    return total / _ORDERS * math.exp(-(gap**2) / (2 * _SIGMA**2))
