"""Models of a user's own for runs of the digits: one that its forward computes, one that its graph does."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    """Two residual blocks; its own forward computes every sub-network."""

    def __init__(self, width=16, in_channels=1, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.wide = nn.Conv2d(width, 2 * width, 3, stride=2, bias=False)
        self.last = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, images):
        x = self.blocks(F.relu(self.norm(self.stem(images))))
        return self.head(F.relu(self.last(self.wide(x))).mean((2, 3)))


class Halves(nn.Module):
    """Sizes stand in its forward, so that only its graph computes fewer channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(16, 10)
        self.register_buffer("shift", torch.full((1,), 0.5), persistent=False)

    def forward(self, images):
        x = self.norm(self.stem(images)).relu()
        a, b = x.split([16, 16], 1)
        return self.head((a * b.sigmoid() + self.shift).mean((2, 3)))
'''
SHORT = (
    "training.length=0.25",
    "training.batch_size=128",
    "training.validation_images=100",
    "training.calibration_images=100",
    "training.validate_every_epochs=9",
)
"""Settings of a training of two epochs."""


@contextmanager
def own_model_folder(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make `folder` the present one, with the module `own_nets` and the weights of its networks."""
    (folder / "own_nets.py").write_text(SOURCE)
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    own_nets = importlib.import_module("own_nets")
    for name in ("Net", "Halves"):
        torch.manual_seed(0)
        torch.save(getattr(own_nets, name)().state_dict(), folder / f"{name}.pth")
    yield folder
