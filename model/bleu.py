"""Smoothed BLEU-4 of single sentences over token sequences: a part of the self-critical reward."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

_ORDERS = 4

Tokens = Sequence[Hashable]
Grams = Counter[tuple[Hashable, ...]]


def _grams(tokens: Tokens, order: int) -> Grams:
    return Counter(tuple(tokens[at : at + order]) for at in range(len(tokens) - order + 1))


class SentenceBleu:
    """BLEU-4 (Papineni et al., ACL 2002) with one added to the counts of orders 2 to 4 (Lin & Och, 2004)."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        """Take the reference captions of every image."""
        self._lengths = [[len(caption) for caption in image] for image in references]
        self._most = [_most(image) for image in references]

    def score(self, image: int, tokens: Tokens) -> float:
        """Return the BLEU-4 of one caption for image number ``image``, 0 to 1."""
        logs = 0.0
        for order in range(1, _ORDERS + 1):
            said = _grams(tokens, order)
            most = self._most[image]
            right = sum(min(count, most[gram]) for gram, count in said.items() if gram in most)
            added = order > 1
            if not right + added:
                return 0.0
            logs += math.log((right + added) / (sum(said.values()) + added))
        closest = min(self._lengths[image], key=lambda length: (abs(length - len(tokens)), length))
        return math.exp(logs / _ORDERS + min(0.0, 1 - closest / len(tokens)))


def _most(captions: Sequence[Tokens]) -> Grams:
    """Return how often each n-gram occurs in the one caption that has it most."""
    found: Grams = Counter()
    for caption in captions:
        for order in range(1, _ORDERS + 1):
            found |= _grams(caption, order)
    return found
