"""Detectors with one output: SSDlite's head on a small backbone, and torchvision's SSDlite320."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops.misc import Conv2dNormActivation

from detection.anchors import ANCHORS_PER_CELL

_NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


class SmallBackbone(nn.Module):
    """Inverted residuals (Sandler et al. 2018); feature maps of strides 8, 16 and 32."""

    channels = (32, 64, 96)

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.stem = Conv2dNormActivation(3, 16, 3, stride=2, activation_layer=nn.ReLU6)
        self.first = _stage(16, 24, 2)
        self.stages = nn.ModuleList([_stage(24, 32, 3), _stage(32, 64, 3), _stage(64, 96, 2)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (n, 3, side, side) to feature maps."""
        features, maps = self.first(self.stem(images)), list[Tensor]()
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps


def _stage(in_channels: int, out_channels: int, num_blocks: int) -> nn.Sequential:
    blocks = [InvertedResidual(in_channels, out_channels, 2, 4)]
    blocks += [InvertedResidual(out_channels, out_channels, 1, 4) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)


class Detector(nn.Module):
    """A backbone of several feature maps, and SSDlite's head.

    All of its outputs are one tensor (n, num_anchors, 4 + 1 + num_classes): for each default box the offsets
    of the box, and the logits of the background and the classes. The default boxes depend on nothing but the
    size of the images, and are known outside of the network.
    """

    def __init__(self, backbone: nn.Module, head: SSDLiteHead) -> None:
        """Take the parts.

        Args:
            backbone: maps images to a list of feature maps, or to feature maps by name.
            head: maps them to offsets and logits.
        """
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, side, side) to offsets and logits."""
        maps = self.backbone(images)
        outputs = self.head(list(maps.values()) if isinstance(maps, dict) else maps)
        return torch.cat([outputs["bbox_regression"], outputs["cls_logits"]], 2)


def small_ssdlite(num_classes: int = 3) -> Detector:
    """Return SSDlite on `SmallBackbone`; its task is `DetectionTask`.

    Args:
        num_classes: number of classes, without the background.
    """
    num_anchors = [ANCHORS_PER_CELL] * len(SmallBackbone.channels)
    head = SSDLiteHead(list(SmallBackbone.channels), num_anchors, num_classes + 1, _NORM)
    return Detector(SmallBackbone(), head)


def ssdlite320(num_classes: int = 3) -> Detector:
    """Return torchvision's SSDlite320 on MobileNetV3 with random weights; its task is `Ssdlite320Task`.

    Args:
        num_classes: number of classes, without the background.
    """
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1)
    return Detector(network.backbone, network.head)
