"""ResNet-50 (He et al., CVPR 2016; stride in the 3 x 3 convolution) under torchvision's weight names."""

from __future__ import annotations

from torch import Tensor, nn

from model.encoder_base import GridEncoder, ImageNetScaling

_EXPANSION = 4


class Bottleneck(nn.Module):
    """Three convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, 4 * width, h / stride, w / stride)."""
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        y = nn.functional.relu(self.bn2(self.conv2(y)))
        return nn.functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(GridEncoder):
    """Grid features of ResNet-50: 224 x 224 pixels give 49 positions of 2,048 channels."""

    size, positions, channels = 224, 49, 2048
    published = ("resnet50-11ad3fa6.pth", "resnet50-0676ba61.pth")
    """File names of torchvision's weights, the better ones first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = ImageNetScaling()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, 1)
        self.layer2 = _stage(256, 128, 4, 2)
        self.layer3 = _stage(512, 256, 6, 2)
        self.layer4 = _stage(1024, 512, 3, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB pixels (n, 224, 224, 3) to features (n, 49, 2048)."""
        x = nn.functional.relu(self.bn1(self.conv1(self.scale(pixels))))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features: Tensor = x.flatten(2).transpose(1, 2)
        return features


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(width * _EXPANSION, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)
