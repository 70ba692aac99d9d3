"""The captioner around a network: options, beam search and words; the network's run time is a part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from model.captioner import Caption, DecodingOptions, Pixels, Preprocessing
from model.decoding import Hypothesis, SearchOptions, StepModel, WordRules, search
from model.errors import CheckpointInvalid, InvalidOptions, ModelOutOfMemory
from model.nucleus import SampleOptions, image_seeds, sample
from model.options import check_options, resolve_options
from model.tokenizer import Tokenizer

_LOOP = 3
_Options = TypeVar("_Options", SearchOptions, SampleOptions)


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
        self.takes_prompt = False
        self._language, self._defaults, self._model = language, defaults, model

    def resolve(self, options: DecodingOptions) -> DecodingOptions:
        """Fill every ``None`` from the model's defaults; raise ``InvalidOptions`` on what it cannot do."""
        if options.prompt:
            raise InvalidOptions(f"the model {self.name} takes no prompt")
        return resolve_options(options, DecodingOptions(**dataclasses.asdict(self._defaults)))

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Caption uint8 images (n, height, width, 3); per image ``num_captions`` captions, best first.

        A caption that loops comes back as the empty text, like one that says nothing.
        """
        resolved = self.resolve(options)
        self.preprocessing.check(images)
        if not len(images):
            return []
        try:
            self._model.see(images)
            found = self._decode(images, resolved)
        except MemoryError as error:
            raise ModelOutOfMemory(f"the batch does not fit into memory: {error}") from error
        return [[self._caption(hypothesis) for hypothesis in one] for one in found]

    def _decode(self, images: Pixels, options: DecodingOptions) -> list[list[Hypothesis]]:
        values = dataclasses.asdict(options)
        if options.top_p is not None:
            seeds = image_seeds(images, options.seed or 0)
            return sample(self._model, seeds, _chosen(SampleOptions, values), self._language.rules)
        chosen = _chosen(SearchOptions, values)
        return search(self._model, len(images), chosen, self._language.rules)

    def without_blocking(self) -> BeamCaptioner:
        """Return a captioner on the same network that says what comes to it, loops included."""
        language = Language(self._language.tokenizer, None)
        mine = (self.name, self.digest, self.device, self.preprocessing)
        return BeamCaptioner(*mine, language, self._defaults, self._model)

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        looping = self._language.rules is not None and loops(hypothesis.words)
        words = () if looping else hypothesis.words
        return Caption(self._language.tokenizer.decode(words), round(hypothesis.score, 4))


def loops(words: tuple[object, ...]) -> bool:
    """Say whether one to three words follow themselves three times in a row."""
    spans = [
        words[at : at + size * _LOOP] for size in (1, 2, 3) for at in range(len(words) - size * _LOOP + 1)
    ]
    return any(span == span[: len(span) // _LOOP] * _LOOP for span in spans)


def _chosen(kind: type[_Options], values: Mapping[str, Any]) -> _Options:
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


def search_defaults(decoding: Mapping[str, Any]) -> SearchOptions:
    """Read the decoding defaults of a checkpoint; raise ``CheckpointInvalid`` if they cannot work."""
    try:
        options = _chosen(SearchOptions, {"length_penalty": 1.0, **decoding})
        check_options(DecodingOptions(**dataclasses.asdict(options)))
    except (KeyError, InvalidOptions) as error:
        raise CheckpointInvalid(f"the decoding defaults are unusable: {error}") from error
    return options
