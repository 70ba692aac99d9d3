"""What training changes: the caption network and, where its upper part is trained, the image encoder."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from model.encoder import EfficientNetLite0
from model.encoder_base import GridEncoder
from model.encoder_top import EncoderTop
from model.errors import TrainingError
from model.networks import Network

CACHES = ("features", "trunk", "none")


class FrozenEncoder(nn.Module):
    """A whole encoder that is not trained, nor averaged or stored with what is."""

    def __init__(self, encoder: GridEncoder) -> None:
        super().__init__()
        # In a tuple, where torch does not look for weights.
        self._encoder = (encoder,)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, size, size, 3) to features (n, positions, channels)."""
        found: Tensor = self._encoder[0].to(pixels.device)(pixels)
        return found


class WholeEncoder(nn.Module):
    """A whole encoder that is trained; its norms keep the statistics that they came with."""

    def __init__(self, encoder: GridEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval()

    def train(self, mode: bool = True) -> WholeEncoder:
        """Stay in inference mode: the statistics of a few photos would be worse than ImageNet's."""
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, size, size, 3) to features (n, positions, channels)."""
        found: Tensor = self.encoder(pixels)
        return found


class TrainedCaptioner(nn.Module):
    """Cached tensors of photos to features, and the network that captions them."""

    def __init__(self, top: nn.Module, network: Network, *, half: bool = False) -> None:
        """Take both parts; ``half`` computes in bfloat16 where that is safe (weights stay in float32)."""
        super().__init__()
        self.top, self.network = top, network
        self.top_learns = False
        self.half_precision = half

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.bias.device

    def computing(self) -> AbstractContextManager[object]:
        """Return the context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision)

    def features(self, cached: Tensor) -> Tensor:
        """Map what the cache holds of some photos to features (n, positions, channels)."""
        with torch.set_grad_enabled(self.top_learns and torch.is_grad_enabled()):
            found: Tensor = self.top(cached.to(self.device))
        return found

    def write_to(self, encoder: GridEncoder) -> None:
        """Put what the encoder's upper part learned into an encoder."""
        if isinstance(self.top, EncoderTop) and isinstance(encoder, EfficientNetLite0):
            self.top.write_to(encoder)
        elif isinstance(self.top, WholeEncoder):
            encoder.load_state_dict(self.top.encoder.state_dict())


def check_cache(encoder: GridEncoder, cache: str) -> None:
    """Raise ``TrainingError`` for what cannot be cached of an encoder."""
    if cache not in CACHES:
        raise TrainingError(f"unknown cache {cache!r}; use {', '.join(CACHES)}")
    if cache == "trunk" and not isinstance(encoder, EfficientNetLite0):
        raise TrainingError('only efficientnet-lite0 has a trunk to cache; use cache = "features"')


def make_top(encoder: GridEncoder, cache: str, *, learns: bool = True) -> nn.Module:
    """Make what turns cached tensors, of a kind that ``check_cache`` lets pass, into features."""
    if cache == "trunk" and isinstance(encoder, EfficientNetLite0):
        return EncoderTop(encoder)
    if cache == "none":
        return WholeEncoder(encoder) if learns else FrozenEncoder(encoder)
    return nn.Identity()
