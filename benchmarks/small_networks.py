"""Well-known networks for small grey images, two of them such that their graph runs."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ShuffleNetV2, VisionTransformer
from torchvision.models.resnet import BasicBlock, ResNet


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            convolution = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20 of He et al. (2016, sec. 4.2), with convolutions as shortcuts between the stages."""

    def __init__(self, in_channels: int = 1, num_classes: int = 10, stem_stride: int = 1) -> None:
        """Build the network with random weights; a stride of 2 in the stem takes a quarter of the MACs."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(_Block(16, 32, 2), _Block(32, 32, 1), _Block(32, 32, 1))
        self.layer3 = nn.Sequential(_Block(32, 64, 2), _Block(64, 64, 1), _Block(64, 64, 1))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, in_channels, h, w)."""
        features = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(features.mean((2, 3)))  # type: ignore[no-any-return]


def resnet18_narrow(in_channels: int = 1, num_classes: int = 10) -> nn.Module:
    """Return a ResNet-18 (He et al. 2016) of half the channels, with a 3x3 convolution as its stem."""
    network: Any = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    network.conv1 = nn.Conv2d(in_channels, 32, 3, 2, 1, bias=False)
    network.bn1, network.maxpool, network.inplanes = nn.BatchNorm2d(32), nn.Identity(), 32
    for index, channels in enumerate((32, 64, 128, 256)):
        layer = network._make_layer(BasicBlock, channels, 2, stride=1 if index == 0 else 2)
        setattr(network, f"layer{index + 1}", layer)
    network.fc = nn.Linear(256, num_classes)
    result: nn.Module = network
    return result


def vgg_small(in_channels: int = 1, num_classes: int = 10) -> nn.Module:
    """Return a VGG (Simonyan and Zisserman 2015) of six convolutions with batch norm."""
    layers: list[nn.Module] = []
    for channels, pools in ((64, False), (64, True), (128, False), (128, True), (256, False), (256, False)):
        layers += [
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        layers += [nn.MaxPool2d(2)] if pools else []
        in_channels = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, num_classes))


def mobilenet_v2_small(in_channels: int = 1, num_classes: int = 10) -> nn.Module:
    """Return a MobileNetV2 (Sandler et al. 2018) of fewer blocks, with strides in the stem and two stages."""
    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 2, 1]]
    network: Any = MobileNetV2(num_classes=num_classes, inverted_residual_setting=stages, dropout=0.0)
    network.features[0][0] = nn.Conv2d(in_channels, 32, 3, 2, 1, bias=False)
    network.features[-1][0] = nn.Conv2d(96, 512, 1, bias=False)
    network.features[-1][1] = nn.BatchNorm2d(512)
    network.classifier[1] = nn.Linear(512, num_classes)
    result: nn.Module = network
    return result


def shufflenet_small(in_channels: int = 1, num_classes: int = 10) -> nn.Module:
    """Return a ShuffleNetV2 (Ma et al. 2018) of 58 channels and more, which runs at 14x14 pixels first."""
    network = ShuffleNetV2([4, 8, 4], [24, 58, 116, 232, 464], num_classes=num_classes)
    network.conv1[0] = nn.Conv2d(in_channels, 24, 3, 2, 1, bias=False)
    network.maxpool = nn.Identity()
    result: nn.Module = network
    return result


def vit_small(in_channels: int = 1, num_classes: int = 10) -> nn.Module:
    """Return a vision transformer (Dosovitskiy et al. 2021) of 6 layers, which reads patches of 4x4."""
    network = VisionTransformer(
        image_size=28,
        patch_size=4,
        num_layers=6,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=192,
        num_classes=num_classes,
    )
    network.conv_proj = nn.Conv2d(in_channels, 64, 4, 4)
    result: nn.Module = network
    return result
