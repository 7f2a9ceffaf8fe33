"""Permuting the units of all groups at once, or of one, leaves the function of a network as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from every_trap import TRAPS, example_of
from permuted_units import TOLERANCE, difference, grouping_of, outputs_of, permuted_state, randomise_all
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision import models

CAPTURED = sorted(set(TRAPS) - {"PythonBranch"})

INVERTED_RESIDUALS = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
REAL: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=10),
    "resnext": lambda: models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], 10, groups=4, width_per_group=8),
    "mobilenet_v2": lambda: models.MobileNetV2(10, 0.5, INVERTED_RESIDUALS),
    "shufflenet_v2": lambda: models.ShuffleNetV2([2, 2, 1], [24, 48, 96, 192, 256], 10),
    "densenet": lambda: models.DenseNet(8, (2, 3, 2, 2), 16, num_classes=10),
    "googlenet": lambda: models.GoogLeNet(10, init_weights=False),
    "swin": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=10),
    "vit": lambda: models.VisionTransformer(64, 16, 2, 4, 32, 64, num_classes=10),
}


def doubled(network: nn.Module, args: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return a network in eval mode with random values, and its arguments, both in double precision."""
    network = network.double().eval()
    randomise_all(network)

    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return network, pytree.tree_map(double, args)


@pytest.mark.parametrize("name", CAPTURED)
def test_units_of_a_trap_permute(name: str) -> None:
    network, args = doubled(TRAPS[name](), example_of(TRAPS[name]()))
    groups = grouping_of(network, args).groups
    expected = outputs_of(network, args)
    for chosen in (groups, *([group] for group in groups)):
        state = permuted_state(network, chosen, seed=len(chosen))
        found = difference(expected, outputs_of(network, args, state))
        assert found < TOLERANCE, [group.name for group in chosen]


@pytest.mark.parametrize("name", REAL)
def test_units_of_a_real_network_permute(name: str) -> None:
    network, args = doubled(REAL[name](), (torch.randn(2, 3, 64, 64),))
    groups = grouping_of(network, args).groups
    assert groups
    state = permuted_state(network, groups, seed=0)
    assert difference(outputs_of(network, args), outputs_of(network, args, state)) < TOLERANCE


@pytest.mark.parametrize("name", ["Concat", "Shuffle", "Attention", "Glu", "FlattenLinear"])
def test_an_axis_that_is_left_out_is_noticed(name: str) -> None:
    network, args = doubled(TRAPS[name](), example_of(TRAPS[name]()))
    expected = outputs_of(network, args)
    for group in grouping_of(network, args).groups:
        whole = permuted_state(network, [group], seed=3)
        original = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        for parameter, _ in group.axes:
            found = difference(expected, outputs_of(network, args, whole | {parameter: original[parameter]}))
            assert found > 1e-5, (group.name, parameter)
