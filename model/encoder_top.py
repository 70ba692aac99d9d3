"""The upper part of the encoder in a form that can be trained on a CPU.

Norms are folded into the convolutions, 1 x 1 convolutions are matrix products, and depthwise kernels stay as
they are: their gradient costs as much as all the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.encoder import EfficientNetLite0, MBConv, SameConv


def _folded(conv: SameConv, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    return weight.detach().clone(), (norm.bias - norm.running_mean * scale).detach().clone()


@torch.no_grad()
def unfold(weight: Tensor, bias: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Write a convolution that its norm was folded into back into both; the norm then only adds the bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight.copy_(weight.view_as(conv.weight))
    norm.weight.fill_(1)
    norm.bias.copy_(bias.flatten())
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)


class _Mix(nn.Linear):
    """A 1 x 1 convolution with its norm, over (n, h, w, channels)."""

    def __init__(self, conv: SameConv, norm: nn.BatchNorm2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels)
        weight, bias = _folded(conv, norm)
        self.weight, self.bias = nn.Parameter(weight[:, :, 0, 0]), nn.Parameter(bias)


class _Spread(nn.Module):
    """A depthwise convolution with its norm, over (n, h, w, channels); only the bias is trained."""

    kernel: Tensor

    def __init__(self, conv: SameConv, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.stride, self.pads = conv.stride, conv.pads
        kernel, bias = _folded(conv, norm)
        self.register_buffer("kernel", kernel.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, h, w, channels) to (n, h / stride, w / stride, channels)."""
        y = nn.functional.pad(x.permute(0, 3, 1, 2), self.pads)
        y = nn.functional.conv2d(y, self.kernel, self.bias, self.stride, groups=len(self.kernel))
        return y.permute(0, 2, 3, 1)


class _Block(nn.Module):
    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.residual = block.residual
        self.expand = _Mix(block.expand_conv, block.bn0)
        self.depthwise = _Spread(block.depthwise_conv, block.bn1)
        self.project = _Mix(block.project_conv, block.bn2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, h, w, inputs) to (n, h / stride, w / stride, outputs)."""
        y = nn.functional.relu6(self.expand(x))
        y = self.project(nn.functional.relu6(self.depthwise(y)))
        return x + y if self.residual else y  # type: ignore[no-any-return]


class EncoderTop(nn.Module):
    """What ``EfficientNetLite0.top`` does, trainable."""

    def __init__(self, encoder: EfficientNetLite0) -> None:
        """Copy the upper part of an encoder."""
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(block) for block in encoder.upper_blocks()))
        self.head = _Mix(encoder.conv_head, encoder.bn1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the trunk's output (n, channels, h, w) to features (n, positions, channels)."""
        y = x.permute(0, 2, 3, 1).contiguous()
        return nn.functional.relu6(self.head(self.blocks(y))).flatten(1, 2)

    def write_to(self, encoder: EfficientNetLite0) -> None:
        """Put the trained weights into an encoder; its norms only add a bias from then on."""
        for trained, block in zip(self.blocks, encoder.upper_blocks(), strict=True):
            assert isinstance(trained, _Block)
            unfold(trained.expand.weight, trained.expand.bias, block.expand_conv, block.bn0)
            unfold(trained.depthwise.kernel, trained.depthwise.bias, block.depthwise_conv, block.bn1)
            unfold(trained.project.weight, trained.project.bias, block.project_conv, block.bn2)
        unfold(self.head.weight, self.head.bias, encoder.conv_head, encoder.bn1)
