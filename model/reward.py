"""The reward of self-critical training: CIDEr-D and BLEU-4, less what makes captions unreadable."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from model.bleu import SentenceBleu
from model.cider import CiderD
from model.tokenizer import END

_MOST_REPEATS = 2


class Reward:
    """Scores sampled captions of the photos of a split, given as token ids without the end token."""

    def __init__(
        self,
        references: Sequence[Sequence[Sequence[int]]],
        length: int,
        *,
        unfinished: Collection[int] = (),
        bleu: float = 0.0,
        penalty: float = 0.0,
    ) -> None:
        """Take every photo's references, the greatest length, the words that no caption ends with.

        ``bleu`` is the weight of BLEU-4 beside CIDEr-D; ``penalty`` is what each repeated pair of words and
        an unfinished end cost.
        """
        closed = [[[*caption, END] for caption in image] for image in references]
        self._cider, self._bleu_weight = CiderD(closed), bleu
        self._bleu = SentenceBleu(closed) if bleu else None
        self._length, self._unfinished, self._penalty = length, frozenset(unfinished), penalty

    def score(self, image: int, tokens: Sequence[int]) -> float:
        """Return the reward of one caption, about 0 to 10."""
        # The end token counts as a word, else captions learn to stop in the middle.
        closed = [*tokens, END] if len(tokens) < self._length else tokens
        praise = self._cider.score(image, closed)
        if self._bleu:
            praise += self._bleu_weight * self._bleu.score(image, closed)
        return praise - self._penalty * self._faults(tokens)

    def _faults(self, tokens: Sequence[int]) -> int:
        pairs = list(pairwise(tokens))
        endless = len(tokens) >= self._length or (bool(tokens) and tokens[-1] in self._unfinished)
        return min(len(pairs) - len(set(pairs)), _MOST_REPEATS) + endless
