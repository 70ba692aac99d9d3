"""The captioner around a network: options, beam search and words; the network's run time is a part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from model.captioner import Caption, DecodingOptions, Pixels, Preprocessing
from model.decoding import Hypothesis, SearchOptions, StepModel, WordRules, search
from model.errors import CheckpointInvalid, InvalidOptions, ModelOutOfMemory
from model.tokenizer import Tokenizer

MAX_BEAMS = 5
MAX_LENGTH = 50
_LOOP = 3


class ImageModel(StepModel, Protocol):
    """A decoder that can also look at images."""

    def see(self, images: Pixels) -> None:
        """Encode uint8 images (n, height, width, 3); the next ``start`` captions them."""
        ...


@dataclass(frozen=True)
class Language:
    """What a model knows of its words beside their ids."""

    tokenizer: Tokenizer
    rules: WordRules | None
    """None lets words repeat."""

    @classmethod
    def of(cls, vocabulary: list[str], function: list[str], unfinished: list[str]) -> Language:
        """Build from word lists as checkpoints store them."""
        tokenizer = Tokenizer(vocabulary)
        flags = [np.zeros(len(tokenizer), dtype=np.bool_) for _ in range(2)]
        for flag, chosen in zip(flags, (function, unfinished), strict=True):
            flag[tokenizer.ids(chosen)] = True
        return cls(tokenizer, WordRules(*flags))


class BeamCaptioner:
    """A ``Captioner`` that decodes with beam search; the network behind it may run anywhere."""

    def __init__(
        self,
        name: str,
        digest: str,
        device: str,
        preprocessing: Preprocessing,
        language: Language,
        defaults: SearchOptions,
        model: ImageModel,
    ) -> None:
        self.name, self.digest, self.device, self.preprocessing = name, digest, device, preprocessing
        self._language, self._defaults, self._model = language, defaults, model

    def resolve(self, options: DecodingOptions) -> DecodingOptions:
        """Fill every ``None`` from the model's defaults; raise ``InvalidOptions`` on what it cannot do."""
        search_options = self._search_options(options)
        return DecodingOptions(**dataclasses.asdict(search_options))

    def _search_options(self, options: DecodingOptions) -> SearchOptions:
        if options.prompt:
            raise InvalidOptions(f"the model {self.name} takes no prompt")
        given = {k: v for k, v in dataclasses.asdict(options).items() if v is not None and k != "prompt"}
        if "num_captions" in given and "num_beams" not in given:
            # Asking for three captions alone should work: the beams follow.
            given["num_beams"] = min(max(self._defaults.num_beams, given["num_captions"]), MAX_BEAMS)
        if "max_length" in given and "min_length" not in given:
            given["min_length"] = min(self._defaults.min_length, given["max_length"])
        resolved = dataclasses.replace(self._defaults, **given)
        _check(resolved)
        return resolved

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Caption uint8 images (n, height, width, 3); per image ``num_captions`` captions, best first.

        A caption that loops comes back as the empty text, like one that says nothing.
        """
        resolved = self._search_options(options)
        expected = (self.preprocessing.height, self.preprocessing.width, 3)
        if images.shape[1:] != expected or images.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 of shape (n, {expected}), not {images.dtype} {images.shape}"
            )
        if not len(images):
            return []
        try:
            self._model.see(images)
            found = search(self._model, len(images), resolved, self._language.rules)
        except MemoryError as error:
            raise ModelOutOfMemory(f"the batch does not fit into memory: {error}") from error
        return [[self._caption(hypothesis) for hypothesis in one] for one in found]

    def without_blocking(self) -> BeamCaptioner:
        """Return a captioner on the same network that says what comes to it, loops included."""
        language = Language(self._language.tokenizer, None)
        mine = (self.name, self.digest, self.device, self.preprocessing)
        return BeamCaptioner(*mine, language, self._defaults, self._model)

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        looping = self._language.rules is not None and loops(hypothesis.words)
        words = () if looping else hypothesis.words
        return Caption(self._language.tokenizer.decode(words), round(hypothesis.score, 4))


def loops(words: tuple[int, ...]) -> bool:
    """Say whether one to three words follow themselves three times in a row."""
    spans = [
        words[at : at + size * _LOOP] for size in (1, 2, 3) for at in range(len(words) - size * _LOOP + 1)
    ]
    return any(span == span[: len(span) // _LOOP] * _LOOP for span in spans)


def _check(options: SearchOptions) -> None:
    bounds: Mapping[str, tuple[int, int]] = {
        "num_beams": (1, MAX_BEAMS),
        "num_captions": (1, options.num_beams),
        "max_length": (1, MAX_LENGTH),
        "min_length": (0, options.max_length),
    }
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidOptions(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def search_defaults(decoding: Mapping[str, Any]) -> SearchOptions:
    """Read the decoding defaults of a checkpoint; raise ``CheckpointInvalid`` if they cannot work."""
    try:
        options = SearchOptions(
            **{field.name: decoding[field.name] for field in dataclasses.fields(SearchOptions)}
        )
        _check(options)
    except (KeyError, InvalidOptions) as error:
        raise CheckpointInvalid(f"the decoding defaults are unusable: {error}") from error
    return options
