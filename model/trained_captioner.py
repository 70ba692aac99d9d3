"""What training changes: the caption network and, where its upper part is trained, the image encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.encoder import EfficientNetLite0
from model.encoder_base import GridEncoder
from model.encoder_top import EncoderTop
from model.errors import TrainingError
from model.network import CaptionNetwork

CACHES = ("features", "trunk")


class TrainedCaptioner(nn.Module):
    """Cached tensors of photos to features, and the network that captions them."""

    def __init__(self, top: nn.Module, network: CaptionNetwork) -> None:
        super().__init__()
        self.top, self.network = top, network
        self.top_learns = False

    def features(self, cached: Tensor) -> Tensor:
        """Map what the cache holds of some photos to features (n, positions, channels)."""
        with torch.set_grad_enabled(self.top_learns and torch.is_grad_enabled()):
            found: Tensor = self.top(cached)
        return found

    def write_to(self, encoder: GridEncoder) -> None:
        """Put what the encoder's upper part learned into an encoder."""
        if isinstance(self.top, EncoderTop) and isinstance(encoder, EfficientNetLite0):
            self.top.write_to(encoder)


def make_top(encoder: GridEncoder, cache: str) -> nn.Module:
    """Make what turns cached tensors into features; raise ``TrainingError`` for what cannot be cached."""
    if cache == "features":
        return nn.Identity()
    if cache != "trunk":
        raise TrainingError(f"unknown cache {cache!r}; use {' or '.join(CACHES)}")
    if not isinstance(encoder, EfficientNetLite0):
        raise TrainingError('only efficientnet-lite0 has a trunk to cache; use cache = "features"')
    return EncoderTop(encoder)
