"""What looks at the picture in a Hugging Face captioner, compiled by OpenVINO: on CPUs, in 32 bits.

The weights and the arithmetic stay; attention no longer writes its matrices out.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from model.cpu_runtime import cpu_settings, infer, one_line

log = logging.getLogger(__name__)

# Where each kind of model keeps it: of these only the last states are read.
_PARTS = {"blip": "vision_model", "git": "git.image_encoder", "vision-encoder-decoder": "encoder"}
_SAME = 1e-3
"""How far the last states, whose size is about 1, may be from torch's."""
_TRIED = 3


def compile_vision(model: Any, example: Tensor, threads: int | None) -> None:
    """Put the compiled form in its place, where the kind of model is known and both see the same.

    ``example`` is a picture (1, 3, height, width) as the model takes it; all others have its size.
    """
    place = _PARTS.get(model.config.model_type)
    if place is None:
        return
    # More than one, and nothing alike in them: neither a size nor an order may have been taken for granted.
    noise = np.random.default_rng(0).normal(size=(_TRIED, *example.shape[1:])).astype(np.float32)
    pictures = torch.from_numpy(noise)
    try:
        vision = model.get_submodule(place)
        compiled = _CompiledVision(vision, example, threads)
        seen, expected = compiled(pictures)[0], _States(vision)(pictures)
        apart = (seen - expected).abs().max().item() if seen.shape == expected.shape else math.inf
    except Exception as error:
        # Encoders of every make are traced here; one that cannot be is as good in torch, only slower.
        log.info("the vision encoder stays in torch: %s", one_line(error))
        return
    if not apart <= _SAME:
        log.info("the vision encoder stays in torch: compiled it says something else, by %g", apart)
        return
    above, _, name = place.rpartition(".")
    setattr(model.get_submodule(above), name, compiled)


class _States(nn.Module):
    def __init__(self, vision: nn.Module) -> None:
        super().__init__()
        self._vision = vision

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        states: Tensor = self._vision(pixel_values=pixel_values).last_hidden_state
        return states


class _CompiledVision(nn.Module):
    def __init__(self, vision: Any, example: Tensor, threads: int | None) -> None:
        super().__init__()
        # What transformers asks an encoder for.
        self.config, self.main_input_name = vision.config, vision.main_input_name
        shape = ov.PartialShape([-1, *example.shape[1:]])
        with warnings.catch_warnings():
            # The converter traces, which torch announces to end, and says which branches it does not keep.
            warnings.simplefilter("ignore")
            graph = ov.convert_model(_States(vision).eval(), example_input=(example,), input=[shape])
        core = ov.Core()
        compiled = core.compile_model(graph, "CPU", cpu_settings(core, None, threads, "f32"))
        self._request = compiled.create_infer_request()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        (states,) = infer(self._request, [np.ascontiguousarray(pixel_values)])
        # The next call writes into the same memory.
        return BaseModelOutput(last_hidden_state=torch.from_numpy(states.copy()))
