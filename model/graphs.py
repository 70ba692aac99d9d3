"""Turns the torch modules into OpenVINO graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.encoder import EfficientNetLite0
from model.network import CaptionNetwork
from model.tokenizer import END

if TYPE_CHECKING:
    import openvino as ov

CANDIDATES = 32
"""Next words that a step returns per beam: enough for 5 beams after repeat blocking has taken its share."""


class ImageToMemory(nn.Module):
    """Pixels to what the decoder attends to: encoder, grid layers and the cross-attention keys and values."""

    def __init__(self, encoder: EfficientNetLite0, network: CaptionNetwork) -> None:
        super().__init__()
        self.encoder, self.network = encoder, network

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, size, size, 3) to memory (2 * layers, n, heads, positions, head size)."""
        return self.network.memory(self.encoder(pixels))


class NextWords(nn.Module):
    """One decoder step that returns only the best next words."""

    def __init__(self, network: CaptionNetwork) -> None:
        super().__init__()
        self.network = network
        self.count = min(CANDIDATES, network.shape.vocabulary)

    def forward(
        self, tokens: Tensor, position: Tensor, memory: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log-probabilities and ids (images, beams, count), the end's, and the new keys and values."""
        scores, new = self.network.step(tokens, position, memory, past)
        best = scores.topk(self.count)
        return best.values, best.indices.to(torch.int32), scores[..., END], new


def encoder_graph(encoder: EfficientNetLite0) -> ov.Model:
    """Convert the encoder: uint8 pixels (n, size, size, 3) in, features (n, positions, channels) out."""
    return _image_graph(encoder, encoder.size)


def memory_graph(encoder: EfficientNetLite0, network: CaptionNetwork) -> ov.Model:
    """Convert the part that runs once per image, ``ImageToMemory``."""
    return _image_graph(ImageToMemory(encoder, network).eval(), encoder.size)


def _image_graph(module: nn.Module, size: int) -> ov.Model:
    import openvino as ov

    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    shape = ov.PartialShape([-1, size, size, 3])
    return ov.convert_model(module, example_input=pixels, input=[(shape, ov.Type.u8)])


def step_graph(network: CaptionNetwork) -> ov.Model:
    """Convert one decoder step, ``NextWords``, for any number of images, beams and past tokens."""
    import openvino as ov

    shape = network.shape
    layers, size = 2 * shape.decoder_layers, shape.width // shape.heads
    example = (
        torch.ones(2, 3, dtype=torch.int64),
        torch.ones(1, dtype=torch.int64),
        torch.zeros(layers, 2, shape.heads, shape.positions, size),
        torch.zeros(4, layers, 6, shape.width),
    )
    inputs = [
        ([-1, -1], ov.Type.i64),
        ([1], ov.Type.i64),
        ([layers, -1, shape.heads, shape.positions, size], ov.Type.f32),
        ([-1, layers, -1, shape.width], ov.Type.f32),
    ]
    dynamic = [(ov.PartialShape(dims), kind) for dims, kind in inputs]
    return ov.convert_model(NextWords(network).eval(), example_input=example, input=dynamic)
