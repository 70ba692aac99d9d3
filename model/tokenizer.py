"""The word tokenizer: lower-case words of the training captions, in and out of the network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<start>", "<end>", "<unknown>")
_WORD = re.compile(r"'?[a-z0-9]+(?:[-'.][a-z0-9]+)*")


def words(text: str) -> list[str]:
    """Split a caption into lower-case words; punctuation is dropped, "man 's" stays two words."""
    return _WORD.findall(text.lower().replace("’", "'"))


class Tokenizer:
    """Words to ids and back; ids 0 to 3 are padding, start, end and unknown."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Take the words in id order, without the four special ones."""
        self.vocabulary = tuple(vocabulary)
        self._words = SPECIALS + self.vocabulary
        self._ids = {word: number for number, word in enumerate(self._words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int) -> Tokenizer:
        """Keep the words that occur at least ``min_count`` times, most frequent first."""
        counts = Counter(word for caption in captions for word in words(caption))
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda w: (-counts[w], w))
        return cls(kept)

    def __len__(self) -> int:
        return len(self._words)

    def encode(self, text: str) -> list[int]:
        """Return the word ids of a caption, without start and end."""
        return [self._ids.get(word, UNKNOWN) for word in words(text)]

    def ids(self, chosen: Iterable[str]) -> list[int]:
        """Return the ids of those words that the vocabulary has."""
        return [self._ids[word] for word in chosen if word in self._ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Join words to text; special ids are left out, "man 's" becomes "man's"."""
        text = " ".join(self._words[number] for number in ids if number >= len(SPECIALS))
        return text.replace(" '", "'")
