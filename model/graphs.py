"""Turns the torch modules into OpenVINO graphs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.encoder_base import GridEncoder
from model.networks import Network
from model.tokenizer import END

if TYPE_CHECKING:
    import openvino as ov

CANDIDATES = 32
"""Next words that a step returns per beam: enough for 5 beams after repeat blocking has taken its share."""


class ImageToMemory(nn.Module):
    """Pixels to what the decoder attends to: encoder, grid layers and the cross-attention keys and values."""

    def __init__(self, encoder: GridEncoder, network: Network) -> None:
        super().__init__()
        self.encoder, self.network = encoder, network

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, size, size, 3) to memory (2 * layers, n, heads, positions, head size)."""
        return self.network.memory(self.encoder(pixels))


class NextWords(nn.Module):
    """One decoder step that returns only the best next words."""

    def __init__(self, network: Network) -> None:
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


def encoder_graph(encoder: GridEncoder) -> ov.Model:
    """Convert the encoder: uint8 pixels (n, size, size, 3) in, features (n, positions, channels) out."""
    return _image_graph(encoder, encoder.size)


def trunk_graph(encoder: GridEncoder) -> ov.Model:
    """Convert the lower part of an encoder: pixels as above in, its trunk's output (n, …) out."""
    return _image_graph(_Trunk(encoder), encoder.size)


class _Trunk(nn.Module):
    def __init__(self, encoder: GridEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, size, size, 3) to the trunk's output."""
        return self.encoder.trunk(pixels)


def memory_graph(encoder: GridEncoder, network: Network) -> ov.Model:
    """Convert the part that runs once per image, ``ImageToMemory``."""
    return _image_graph(ImageToMemory(encoder, network).eval(), encoder.size)


def _image_graph(module: nn.Module, size: int) -> ov.Model:
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    return _convert(module, (pixels,), [([-1, size, size, 3], "uint8")])


def step_graph(network: Network) -> ov.Model:
    """Convert one decoder step, ``NextWords``, for any number of images, beams and past tokens."""
    with torch.no_grad():
        memory = network.memory(torch.zeros(2, network.shape.positions, network.shape.channels))
    layers, _, heads, positions, size = memory.shape
    example = (
        torch.ones(2, 3, dtype=torch.int64),
        torch.ones(1, dtype=torch.int64),
        memory,
        torch.zeros(4, layers, 6, network.shape.width),
    )
    inputs = [
        ([-1, -1], "int64"),
        ([1], "int64"),
        ([layers, -1, heads, positions, size], "float32"),
        ([-1, layers, -1, network.shape.width], "float32"),
    ]
    return _convert(NextWords(network).eval(), example, inputs)


def _convert(module: nn.Module, example: tuple[Tensor, ...], inputs: list[tuple[list[int], str]]) -> ov.Model:
    import openvino as ov

    dynamic = [(ov.PartialShape(dims), ov.Type(kind)) for dims, kind in inputs]
    with warnings.catch_warnings():
        # The converter still traces, which torch announces to end; version bounds cover that.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ov.convert_model(module.eval(), example_input=example, input=dynamic)
