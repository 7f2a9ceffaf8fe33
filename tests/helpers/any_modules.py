"""Modules without a space, their cards, and small images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.common.expectation import MetricValue
from ofa.data.memory import MemoryData
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import DataSettings
from ofa.export.card import ModelCard

CLASSES = ("ant", "bee", "cat", "dog")


class TwoBranches(nn.Module):
    """Two convolutions side by side, no batch norm, and one linear layer under two names."""

    def __init__(self, channels: int = 1, num_classes: int = 4, width: int = 6) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, width, 3, padding=1)
        self.right = nn.Conv2d(channels, width, 1)
        self.mix = nn.Linear(width, width, bias=False)
        self.mix_again = self.mix
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = (self.left(images).relu() * self.right(images).sigmoid()).mean((2, 3))
        output: Tensor = self.head(self.mix_again(self.mix(hidden).relu()))
        return output


def two_branches(seed: int = 0, channels: int = 1, num_classes: int = 4, width: int = 6) -> TwoBranches:
    torch.manual_seed(seed)
    return TwoBranches(channels, num_classes, width).eval()


def two_branches_card() -> ModelCard:
    return ModelCard(
        name="two branches",
        input_shape=(1, 10, 14),
        preprocessing=Preprocessing((0.4,), (0.2,)),
        class_names=CLASSES,
        expected_metric=MetricValue("top1", 0.5),
        provenance={"made": "by hand"},
    )


def random_images(channels: int, side: int, num_classes: int = len(CLASSES)) -> MemoryData:
    """Return 200 training images, 80 of which are for validation, and 60 test images."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
        return pixels, torch.randint(0, num_classes, (count,), generator=generator)

    settings = DataSettings("made_up", validation_size=80)
    names = tuple(map(str, range(num_classes)))
    return MemoryData(settings, names, draw(200), draw(60))
