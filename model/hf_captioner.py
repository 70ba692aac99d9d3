"""The captioner around a Hugging Face checkpoint: BLIP, BLIP-2, ViT-GPT2, GIT, Florence-2, chat models."""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from model.beam_captioner import loops
from model.captioner import Caption, DecodingOptions, Pixels
from model.device_memory import memory_errors
from model.errors import CheckpointInvalid, InvalidOptions
from model.hf_families import Prompt, TextInputs
from model.hf_pixels import PixelInputs
from model.hf_scores import Drawn, Recorder, end_tokens, rows_until_end
from model.hf_source import PREFIX, digest
from model.hf_vision import compile_vision
from model.nucleus import image_seeds
from model.options import MAX_BEAMS, MAX_LENGTH, resolve_options

_WORTH = 1.3
"""How much faster 16-bit arithmetic must be on a CPU to be worth its rounding."""
_USUAL_LENGTH = 30


def load_hf(folder: Path, reference: str, device: str, threads: int | None) -> HfCaptioner:
    """Load a checkpoint's folder, without code of its own; raise ``CheckpointInvalid``.

    ``reference`` is what it was asked for by; its last part names the captioner.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return HfCaptioner(folder, reference, torch.device(device), threads)
    except CheckpointInvalid:
        raise
    except Exception as error:
        # A checkpoint is foreign data, and the library reports what is wrong with one in every way there is.
        raise CheckpointInvalid(f"{PREFIX}{reference} cannot be loaded: {_line(error)}") from error


class HfCaptioner:
    """A ``Captioner`` that generates with transformers; lengths are in tokens, prompt and start apart."""

    def __init__(
        self, folder: Path, reference: str, device: torch.device, threads: int | None = None
    ) -> None:
        """Load a checkpoint's folder onto a device, in 16 bits where the device gains from it."""
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self._dtype = _best_dtype(device)
        self._device, self.device = device, str(device)
        self._model = _load_model(folder, config, self._dtype).to(device).eval()
        processor, pictures, self._tokenizer = _load_processors(folder, config.model_type)
        self._pixels = PixelInputs(pictures)
        if device.type == "cpu" and self._dtype is torch.float32:
            side = self._pixels.preprocessing
            grey = np.full((1, side.height, side.width, 3), 127, dtype=np.uint8)
            seen = self._pixels(grey, device, self._dtype)
            compile_vision(self._model, seen["pixel_values"], threads)
        self._text = TextInputs(self._model, processor, self._tokenizer, self._pixels)
        self._starts = functools.lru_cache(maxsize=64)(self._start)
        self._ends = end_tokens(self._model, self._tokenizer)
        self.preprocessing = self._pixels.preprocessing
        self.takes_prompt = self._text.family.prompt is not Prompt.NONE
        self.digest = digest(folder)
        self.name = f"{Path(reference.partition('@')[0]).name}@{self.digest[:8]}"
        self._defaults = _defaults(self._model)

    def resolve(self, options: DecodingOptions) -> DecodingOptions:
        """Fill every ``None`` from the model's defaults; raise ``InvalidOptions`` on what it cannot do."""
        if options.prompt and not self.takes_prompt:
            raise InvalidOptions(f"the model {self.name} takes no prompt")
        return resolve_options(options, self._defaults)

    @torch.inference_mode()
    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Caption uint8 images (n, height, width, 3); per image ``num_captions`` captions, best first.

        A caption that loops comes back as the empty text, like one that says nothing. Of samples that say
        the same one is kept.
        """
        resolved = self.resolve(options)
        self.preprocessing.check(images)
        if not len(images):
            return []
        with memory_errors():
            found = self._generate(images, resolved)
        count = len(found) // len(images)
        each = [found[at : at + count] for at in range(0, len(found), count)]
        return each if resolved.top_p is None else [_best_first(drawn) for drawn in each]

    def _generate(self, images: Pixels, options: DecodingOptions) -> list[Caption]:
        sampling = options.top_p is not None
        recorder = Recorder()
        processors: list[Any] = [recorder]
        if sampling:
            processors.append(_drawn(images, options))
            images = np.repeat(images, options.num_captions or 1, 0)
        out = self._model.generate(
            **self._inputs(images, options.prompt),
            logits_processor=transformers.LogitsProcessorList(processors),
            max_new_tokens=options.max_length,
            min_new_tokens=options.min_length,
            num_beams=options.num_beams,
            num_return_sequences=1 if sampling else options.num_captions,
            length_penalty=options.length_penalty,
            do_sample=False,
            return_dict_in_generate=True,
        )
        return self._captions(out, recorder)

    def _inputs(self, images: Pixels, prompt: str | None) -> dict[str, Tensor]:
        start = {
            name: value.repeat_interleave(len(images), 0) for name, value in self._starts(prompt).items()
        }
        return start | self._pixels(images, self._device, self._dtype)

    def _start(self, prompt: str | None) -> dict[str, Tensor]:
        return {name: value.to(self._device) for name, value in self._text(prompt).items()}

    def _captions(self, out: Any, recorder: Recorder) -> list[Caption]:
        tokens = out.sequences[:, recorder.prompt_length :]
        rows = out.get("beam_indices")
        if rows is None:
            rows = rows_until_end(tokens, self._ends)
        scores = recorder.mean_scores(tokens[:, : rows.shape[1]], rows[:, : tokens.shape[1]].long())
        # The first token starts every sequence and is no word.
        first = 1 if self._text.family.prompt is Prompt.START else recorder.prompt_length
        texts = [self._read(one[first:]) for one in out.sequences]
        return [Caption(text, round(score, 4)) for text, score in zip(texts, scores, strict=True)]

    def _read(self, tokens: Tensor) -> str:
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True)).replace(
            "\N{REPLACEMENT CHARACTER}", ""
        )
        words = text.split()
        return "" if loops(tuple(words)) else " ".join(words)


def _best_first(drawn: list[Caption]) -> list[Caption]:
    """Sort samples by their scores, those that are not numbers last, and leave repeated texts out."""
    ranked = sorted(drawn, key=lambda one: -math.inf if math.isnan(one.score) else one.score, reverse=True)
    best: dict[str, Caption] = {}
    for one in ranked:
        best.setdefault(one.text, one)
    return list(best.values())


def _drawn(images: Pixels, options: DecodingOptions) -> Drawn:
    assert options.top_p is not None
    assert options.temperature is not None
    count = range(options.num_captions or 1)
    seeds = [(seed, number) for seed in image_seeds(images, options.seed or 0) for number in count]
    return Drawn(seeds, options.top_p, options.temperature)


def _load_model(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if config.model_type not in known:
        raise CheckpointInvalid(f"{folder}: a model of type {config.model_type!r} does not caption images")
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, config=config, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    lacking = sorted(report["missing_keys"])
    if lacking:
        # transformers would go on with random numbers in their place.
        raise CheckpointInvalid(f"{folder}: the weights lack {len(lacking)} tensors, such as {lacking[0]}")
    return model


def _load_processors(folder: Path, kind: str) -> tuple[Any, Any, Any]:
    """Return (processor or None, image processor, tokenizer)."""
    if kind == "vision-encoder-decoder":
        pictures = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        return None, pictures, transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return processor, processor.image_processor, processor.tokenizer


def _defaults(model: Any) -> DecodingOptions:
    own = model.generation_config
    length = own.max_new_tokens or own.max_length or _USUAL_LENGTH
    return DecodingOptions(
        num_beams=min(own.num_beams or 1, MAX_BEAMS),
        num_captions=1,
        max_length=min(length, MAX_LENGTH),
        min_length=min(own.min_new_tokens or 0, length, MAX_LENGTH),
        length_penalty=1.0 if own.length_penalty is None else min(max(own.length_penalty, 0.0), 2.0),
    )


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type != "cpu":
        return torch.float32
    half, full = (_seconds(dtype) for dtype in (torch.bfloat16, torch.float32))
    return torch.bfloat16 if half * _WORTH < full else torch.float32


def _seconds(dtype: torch.dtype) -> float:
    """Time a layer of a usual size; the best of a few, since other processes may interfere."""
    states, weights = torch.ones(256, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        torch.nn.functional.linear(states, weights)
        best = min(best, time.perf_counter() - began)
    return best


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
