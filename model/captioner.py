"""What a captioner is: the types every captioner shares, and the one function that loads one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """How a decoded picture becomes network input: RGB of width x height."""

    width: int
    height: int
    resample: str = "bicubic"
    fit: str = "squash"
    """``squash`` takes the whole picture, aspect ignored; ``crop`` its centre in the aspect of the input."""

    def check(self, images: Pixels) -> None:
        """Raise ``ValueError`` unless ``images`` are uint8 of shape (n, height, width, 3)."""
        expected = (self.height, self.width, 3)
        if images.shape[1:] != expected or images.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 of shape (n, {expected}), not {images.dtype} {images.shape}"
            )


@dataclass(frozen=True)
class DecodingOptions:
    """Decoding choices; ``None`` means the model's own default."""

    num_beams: int | None = None
    num_captions: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    prompt: str | None = None
    length_penalty: float | None = None
    top_p: float | None = None
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Caption:
    """One caption and its score, the mean log-probability of its tokens (end token included)."""

    text: str
    score: float


class Captioner(Protocol):
    """Captions batches of preprocessed images; one per process, called from one thread."""

    name: str
    """Versioned name, stored with every caption."""
    digest: str
    """sha256 over the checkpoint's files, hex."""
    device: str
    preprocessing: Preprocessing
    takes_prompt: bool

    def resolve(self, options: DecodingOptions) -> DecodingOptions:
        """Fill every ``None`` from the model's defaults; raise ``InvalidOptions`` on what it cannot do."""
        ...

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Caption uint8 images (n, height, width, 3); per image ``num_captions`` captions, best first."""
        ...
