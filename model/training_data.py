"""What the training loops read: cached tensors, token ids, and batches in a seeded order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from model.dataset import CaptionedImage
from model.tokenizer import Tokenizer

MIN_WORDS = 3  # shorter references ("A", "broken image") are junk and are not trained on


class Pictures(Protocol):
    """Where photos are found by view and number: the cache, or ``LivePictures``."""

    def __len__(self) -> int:
        """Return how many views of each photo there are."""
        ...

    def __getitem__(self, place: Any, /) -> Any:
        """Return the array of view ``place[0]`` of photo ``place[1]``."""
        ...


@dataclass(frozen=True)
class Split:
    """The photos of one split: where they are found, under which numbers, and their tokenized captions."""

    cache: Pictures
    rows: list[int]
    captions: list[list[list[int]]]

    def batch(self, numbers: list[int], views: list[int]) -> Tensor:
        """Return what the cache holds of some photos, one view of each, as float32."""
        chosen = [self.cache[view, self.rows[number]] for number, view in zip(numbers, views, strict=True)]
        return torch.from_numpy(np.stack(chosen)).float()

    def __len__(self) -> int:
        return len(self.rows)


def usable(photo: CaptionedImage, tokenizer: Tokenizer) -> list[list[int]]:
    """Return the token ids of a photo's captions that are long enough to train on."""
    return [ids for ids in map(tokenizer.encode, photo.captions) if len(ids) >= MIN_WORDS]


def make_split(cache: Pictures, photos: list[CaptionedImage], split: str, tokenizer: Tokenizer) -> Split:
    """Collect the photos of a split that have at least one usable caption."""
    rows, captions = [], []
    for number, photo in enumerate(photos):
        tokens = usable(photo, tokenizer)
        if photo.split == split and tokens:
            rows.append(number)
            captions.append(tokens)
    return Split(cache, rows, captions)


@dataclass(frozen=True)
class Batch:
    """Some photos of a split: their numbers, cached tensors and captions (equally many for each)."""

    numbers: list[int]
    cached: Tensor
    captions: list[list[list[int]]]


def batches(split: Split, size: int, captions: int, order: random.Random) -> Iterator[Batch]:
    """Yield the photos of a split in random order and view, with ``captions`` of its captions."""
    views = len(split.cache)
    numbers = list(range(len(split)))
    order.shuffle(numbers)
    for start in range(0, len(numbers), size):
        chosen = numbers[start : start + size]
        cached = split.batch(chosen, [order.randrange(views) for _ in chosen])
        yield Batch(chosen, cached, [_pick(split.captions[n], captions, order) for n in chosen])


def _pick(captions: list[list[int]], count: int, order: random.Random) -> list[list[int]]:
    shuffled = order.sample(captions, len(captions))
    return [shuffled[place % len(shuffled)] for place in range(count)]


def plain_batches(split: Split, size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the photos of a split in order, plain: their numbers and cached tensors."""
    for start in range(0, len(split), size):
        numbers = list(range(start, min(start + size, len(split))))
        yield numbers, split.batch(numbers, [0] * len(numbers))
