"""What every image encoder is, whichever network it holds."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.errors import TrainingError


class GridEncoder(nn.Module):
    """Maps uint8 RGB pixels (n, size, size, 3) to features (n, positions, channels); scaling included."""

    size: ClassVar[int]
    positions: ClassVar[int]
    channels: ClassVar[int]
    trunk_shape: ClassVar[tuple[int, ...]] = ()
    """Shape of ``trunk``'s output for one image; empty if the encoder is not cut into trunk and top."""

    def trunk(self, pixels: Tensor) -> Tensor:
        """Map pixels to what the lower part makes of them; whole encoders have no such part."""
        raise TrainingError(f"{type(self).__name__} has no trunk")


def weights_digest(module: nn.Module) -> str:
    """Return the sha256 of all that a module's ``state_dict`` holds, hex."""
    found = hashlib.sha256()
    for tensor in module.state_dict().values():
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


class ImageNetScaling(nn.Module):
    """Uint8 RGB (n, size, size, 3) to float (n, 3, size, size), as torchvision's weights expect it."""

    def __init__(self) -> None:
        super().__init__()
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("factor", (1 / 255 / deviation).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (mean / deviation).view(3, 1, 1), persistent=False)
        self.factor: Tensor
        self.shift: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Scale, move channels first."""
        return pixels.permute(0, 3, 1, 2) * self.factor - self.shift


class ConvNorm(nn.Module):
    """A convolution without bias, batch normalisation and ReLU; sizes are kept unless it strides."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        return nn.functional.relu(self.bn(self.conv(x)))
