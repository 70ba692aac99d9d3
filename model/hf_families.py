"""What differs between the kinds of Hugging Face captioners: the text they start from, and what it means."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from torch import Tensor

from model.captioner import Preprocessing
from model.hf_pixels import PixelInputs


class Prompt(Enum):
    """What a model makes of a prompt."""

    NONE = auto()
    START = auto()
    """The caption begins with it."""
    INSTRUCTION = auto()
    """The caption answers it."""


@dataclass(frozen=True)
class Family:
    """A kind of model: what a prompt is to it, and which one it needs where none is given."""

    prompt: Prompt
    default: str | None = None


FAMILIES = {
    "vision-encoder-decoder": Family(Prompt.NONE),
    "blip": Family(Prompt.START),
    "git": Family(Prompt.START),
    "blip-2": Family(Prompt.INSTRUCTION),
    "instructblip": Family(Prompt.INSTRUCTION, "Write a short description for the image."),
    "florence2": Family(Prompt.INSTRUCTION, "<CAPTION>"),
    "paligemma": Family(Prompt.INSTRUCTION, "caption en"),
}
CHAT = Family(Prompt.INSTRUCTION, "Describe this image in one sentence.")
"""Every other image-text-to-text model is asked as in a conversation."""


class TextInputs:
    """Makes the tokens a model starts from; the same for every picture, so made once for each prompt."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any, pixels: PixelInputs) -> None:
        """Take a model with its processor (``None`` where it has none) and tokenizer."""
        self._kind = model.config.model_type
        self.family = FAMILIES.get(self._kind, CHAT)
        self._accepted = set(inspect.signature(model.forward).parameters)
        self._processor, self._tokenizer, self._pixels = processor, tokenizer, pixels

    def __call__(self, prompt: str | None) -> dict[str, Tensor]:
        """Return tensors of one row for a prompt."""
        text = prompt or self.family.default
        if self._kind == "git":
            return self._git(text or "")
        if text is None:
            return {}
        return self._by_processor(text)

    def _git(self, text: str) -> dict[str, Tensor]:
        """Tokenize a beginning: the start token, and no end token after the text."""
        made = self._tokenizer(text, return_tensors="pt")
        return {name: made[name][:, :-1] for name in ("input_ids", "attention_mask")}

    def _by_processor(self, text: str) -> dict[str, Tensor]:
        """Have the processor lay out text and picture; a grey one does, since all have the same size."""
        grey = _grey(self._pixels.preprocessing)
        pictures = self._pixels.by_processor(grey)
        asked = self._asked(text) if self.family is CHAT else text
        made = self._processor(images=[grey], text=[asked], return_tensors="pt", **self._pixels.whole)
        kept = self._accepted - set(pictures)
        return {name: value for name, value in made.items() if name in kept and isinstance(value, Tensor)}

    def _asked(self, text: str) -> str:
        parts = [{"type": "image"}, {"type": "text", "text": text}]
        if getattr(self._processor, "chat_template", None):
            turns = [{"role": "user", "content": parts}]
            return str(self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        return f"{getattr(self._processor, 'image_token', '<image>')}{text}"


def _grey(preprocessing: Preprocessing) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((preprocessing.height, preprocessing.width, 3), 127, dtype=np.uint8)
