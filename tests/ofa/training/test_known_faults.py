"""Layers that PyTorch trains wrongly are refused before the first step."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_supernet import ToySupernet
from training_run import make_data

from ofa.common.errors import UserError
from ofa.runs.duration import estimate_durations
from ofa.space.plain import GeneConfig
from ofa.training.fitting import fit
from ofa.training.known_faults import check_strided_convolutions
from ofa.training.recipe import load_recipe
from ofa.training.settings import FinetuneSettings

CPU = torch.device("cpu")


def layer(channels: int, kernel: int = 1, stride: int = 2, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 12, kernel, stride, groups=groups))


@pytest.mark.parametrize("channels", [2, 7])
def test_few_channels_of_a_strided_convolution_are_refused(channels: int) -> None:
    text = f"0, a 1x1 convolution with stride, has {channels} input channels; .* model.divisor=8"
    with pytest.raises(UserError, match=text):
        check_strided_convolutions(layer(channels), CPU)
    check_strided_convolutions(layer(channels), torch.device("cuda"))


@pytest.mark.parametrize(
    "network", [layer(1), layer(8), layer(4, kernel=3), layer(4, stride=1), layer(4, groups=4)]
)
def test_others_are_trained(network: nn.Module) -> None:
    check_strided_convolutions(network, CPU)


def test_fine_tuning_refuses_them() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), *layer(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    settings = FinetuneSettings(1, 0.1, 30, 0.9, 0.0, 0.0, 0.0, 0)
    with pytest.raises(UserError, match="1, a 1x1 convolution with stride, has 4 input channels"):
        fit(network, make_data(), settings, resolution=12)


def test_trying_how_long_a_training_takes_refuses_them() -> None:
    class Narrow(ToySupernet):
        """A supernet whose smallest network has such a layer."""

        def extract(self, config: GeneConfig, dropout: float = 0.0) -> nn.Sequential:
            return layer(4)

    recipe = load_recipe("demo")
    with pytest.raises(UserError, match="0, a 1x1 convolution with stride, has 4 input channels"):
        estimate_durations(Narrow(), make_data(), recipe, CPU, calibration_images=10)  # type: ignore[arg-type]
