"""Inception-v3 (Szegedy et al., CVPR 2016) without its classifiers, under torchvision's weight names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.encoder_base import ConvNorm, GridEncoder

Layer = tuple[str, int, tuple[int, int]]
"""Name, output channels, kernel."""
_ONE, _THREE, _FIVE, _WIDE, _HIGH = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


@dataclass(frozen=True)
class Branch:
    """Convolutions one after the other; those of ``fork`` side by side on what the last one gives."""

    chain: tuple[Layer, ...]
    fork: tuple[Layer, ...] = ()


class Mixed(nn.Module):
    """A block of branches beside a pooling branch; a reducing one strides in its last convolutions."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...], pooled: int | None) -> None:
        super().__init__()
        self.branches = branches
        reduces = pooled is None
        for branch in branches:
            channels = inputs
            for name, outputs, kernel in branch.chain:
                last = reduces and name == branch.chain[-1][0]
                self.add_module(name, ConvNorm(channels, outputs, kernel, stride=1 + last, padded=not last))
                channels = outputs
            for name, outputs, kernel in branch.fork:
                self.add_module(name, ConvNorm(channels, outputs, kernel))
        self.branch_pool = None if pooled is None else ConvNorm(inputs, pooled, _ONE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to all branches' channels at the same or half the size."""
        found: list[Tensor] = []
        for branch in self.branches:
            y = x
            for name, _, _ in branch.chain:
                y = self.get_submodule(name)(y)
            found += [self.get_submodule(name)(y) for name, _, _ in branch.fork] or [y]
        if self.branch_pool is None:
            return torch.cat([*found, nn.functional.max_pool2d(x, 3, 2)], 1)
        return torch.cat([*found, self.branch_pool(nn.functional.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionV3(GridEncoder):
    """Grid features of Inception-v3: 299 x 299 pixels give 64 positions of 2,048 channels."""

    size, positions, channels = 299, 64, 2048
    published = ("inception_v3_google-0cc3c7bd.pth",)
    """File name of torchvision's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, _THREE, stride=2, padded=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, _THREE, padded=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, _THREE)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, _ONE)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, _THREE, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_c(n) for n in (128, 160, 160, 192))
        self.Mixed_7a = _d()
        self.Mixed_7b, self.Mixed_7c = _e(1280), _e(2048)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB pixels (n, 299, 299, 3) to features (n, 64, 2048)."""
        # The published weights are TensorFlow's: they want -1 to 1, not ImageNet's mean and deviation.
        x = pixels.permute(0, 3, 1, 2).to(self.Conv2d_1a_3x3.conv.weight.dtype) / 127.5 - 1.0
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nn.functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(nn.functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features: Tensor = x.flatten(2).transpose(1, 2)
        return features


def _a(inputs: int, pooled: int) -> Mixed:
    five = Branch((("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE)))
    return Mixed(inputs, (Branch((("branch1x1", 64, _ONE),)), five, Branch(_double(96))), pooled)


def _double(outputs: int) -> tuple[Layer, ...]:
    names = [f"branch3x3dbl_{number}" for number in (1, 2, 3)]
    return (names[0], 64, _ONE), (names[1], 96, _THREE), (names[2], outputs, _THREE)


def _b() -> Mixed:
    return Mixed(288, (Branch((("branch3x3", 384, _THREE),)), Branch(_double(96))), None)


def _c(inner: int) -> Mixed:
    kernels, twice = (_ONE, _WIDE, _HIGH), (_ONE, _HIGH, _WIDE, _HIGH, _WIDE)
    seven = _sevens("branch7x7_", inner, kernels)
    return Mixed(
        768, (Branch((("branch1x1", 192, _ONE),)), seven, _sevens("branch7x7dbl_", inner, twice)), 192
    )


def _sevens(name: str, inner: int, kernels: tuple[tuple[int, int], ...]) -> Branch:
    count = len(kernels)
    sizes = [inner] * (count - 1) + [192]
    return Branch(tuple((f"{name}{n + 1}", sizes[n], kernels[n]) for n in range(count)))


def _d() -> Mixed:
    three = Branch((("branch3x3_1", 192, _ONE), ("branch3x3_2", 320, _THREE)))
    kernels = (_ONE, _WIDE, _HIGH, _THREE)
    seven = Branch(tuple((f"branch7x7x3_{n}", 192, kernel) for n, kernel in enumerate(kernels, start=1)))
    return Mixed(768, (three, seven), None)


def _e(inputs: int) -> Mixed:
    three = Branch((("branch3x3_1", 384, _ONE),), _fork("branch3x3_2"))
    double = Branch((("branch3x3dbl_1", 448, _ONE), ("branch3x3dbl_2", 384, _THREE)), _fork("branch3x3dbl_3"))
    return Mixed(inputs, (Branch((("branch1x1", 320, _ONE),)), three, double), 192)


def _fork(name: str) -> tuple[Layer, ...]:
    return (f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))
