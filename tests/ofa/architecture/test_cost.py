"""Tests of ofa.architecture.cost: the arithmetic against counts on real modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.cost import compile_cost, macs, network_cost, parameters, peak_activation_bytes
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import distinct_layers, lower
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.modules.static import AddInput, Bottleneck, GlobalPool, MBConv, SqueezeExcite, StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

DrawConfigs = Callable[[StagedSpace, int, int], list[SubnetConfig]]


@dataclasses.dataclass
class Counted:
    """What hooks saw while one image ran through a real network."""

    macs: int = 0
    peak_elements: int = 0


def run_counted(network: nn.Module, images: Tensor) -> Counted:
    """Run `network` on one image with hooks on every convolution, linear layer and pooling."""
    counted = Counted()
    inside_squeeze = {m for se in network.modules() if isinstance(se, SqueezeExcite) for m in se.modules()}
    held: dict[nn.Module, list[Tensor]] = {}
    handles = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        (image,) = inputs
        if isinstance(module, nn.Conv2d):
            per_output = module.weight[0].numel()
            counted.macs += per_output * output.numel()
        elif isinstance(module, nn.Linear):
            counted.macs += module.weight.numel()
        if module not in inside_squeeze:
            live = image.numel() + output.numel()
            others = (kept for kept in held.get(module, []) if kept.data_ptr() != image.data_ptr())
            counted.peak_elements = max(counted.peak_elements, live + sum(kept.numel() for kept in others))

    def enter_block(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(block, AddInput | Bottleneck) or (isinstance(block, MBConv) and block.residual):
            parts = {m for m in block.modules() if isinstance(m, nn.Conv2d | nn.AvgPool2d)}
            if isinstance(block, Bottleneck):
                # After its pooling, the projection no longer needs the block's input.
                parts -= set(block.shortcut.modules())
            held.update((m, [inputs[0]]) for m in parts)

    def leave_main_path(shortcut: list[nn.Module]) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            for part in shortcut:
                held[part] = [*held.get(part, []), output]

        return keep

    counts = nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AvgPool2d | GlobalPool
    for module in network.modules():
        if isinstance(module, counts):
            handles.append(module.register_forward_hook(hook))
        if isinstance(module, MBConv | AddInput | Bottleneck):
            handles.append(module.register_forward_pre_hook(enter_block))
        if isinstance(module, Bottleneck):
            shortcut = [*module.pool.modules(), *module.shortcut.modules()]
            handles.append(module.expand.register_forward_hook(leave_main_path(shortcut)))
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return counted


FAMILIES = [
    "micro_space",
    "small_space",
    "tiny_space",
    "micro_proxyless",
    "micro_resnet",
    "micro_resnet_rank",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_costs_equal_counts_on_the_real_module(
    name: str, request: pytest.FixtureRequest, random_configs: DrawConfigs
) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    for config in random_configs(space, 10, 0):
        specs = lower(space, config)
        network = StaticNetwork(specs).eval()
        image = torch.zeros(1, space.in_channels, config.resolution, config.resolution)
        counted = run_counted(network, image)
        cost = network_cost(specs)
        assert cost.macs == counted.macs
        assert cost.parameters == sum(p.numel() for p in network.parameters())
        assert cost.peak_activation_bytes == 4 * counted.peak_elements


@pytest.mark.parametrize("name", ["mobilenet_v3", "proxyless_nas", "resnet50", "resnet50_rank"])
def test_costs_of_a_full_size_network_equal_counts(
    name: str, load_space: Callable[[str], StagedSpace]
) -> None:
    space = load_space(name)
    config = dataclasses.replace(space.config(space.sample(1, np.random.default_rng(1))[0]), resolution=144)
    specs = lower(space, config)
    network = StaticNetwork(specs).eval()
    counted = run_counted(network, torch.zeros(1, 3, 144, 144))
    cost = network_cost(specs)
    assert (cost.macs, cost.peak_activation_bytes) == (counted.macs, 4 * counted.peak_elements)
    assert cost.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("spec", "expected_macs", "expected_parameters", "expected_elements"),
    [
        # 3x3, 2 -> 4 channels, 7x7 -> 4x4.
        (ConvSpec(7, 2, 4, 3, 2, "relu"), 4 * 2 * 9 * 16, 4 * 2 * 9 + 2 * 4, 2 * 49 + 4 * 16),
        (ConvSpec(1, 6, 5, 1, 1, "relu", batch_norm=False), 30, 30, 11),
        # Expansion 8 -> 16 at 4x4, depthwise 3x3, squeeze-excite 16 -> 8 -> 16 at 1x1, projection 16 -> 8;
        # the widest moment is the depthwise layer with the block's input held for the addition.
        (
            MBConvSpec(4, 8, 8, 3, 1, "relu", True, mid_channels=16),
            16 * (8 * 16 + 16 * 9 + 16 * 8) + 16 * 8 + 8 * 16,
            (8 * 16 + 32) + (16 * 9 + 32) + (16 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 16),
            16 * (16 + 16 + 8),
        ),
        # Stride 2: no residual; the expansion's output and the smaller depthwise output are live together.
        (
            MBConvSpec(4, 8, 8, 3, 2, "relu", False, mid_channels=16),
            16 * 8 * 16 + 4 * (16 * 9 + 16 * 8),
            (8 * 16 + 32) + (16 * 9 + 32) + (16 * 8 + 16),
            16 * 8 + 16 * 16,
        ),
        # Residual convolution: its own input is what is held.
        (ConvSpec(4, 8, 8, 3, 1, "relu", add_input=True), 16 * 64 * 9, 64 * 9 + 16, 2 * 16 * 8),
        # 1x1 16 -> 8, 3x3 8 -> 8, 1x1 8 -> 16 at 4x4; the input is held throughout.
        (
            BottleneckSpec(4, 16, 16, 3, 1, "relu", project=False, mid_channels=8),
            16 * (16 * 8 + 64 * 9 + 8 * 16),
            (16 * 8 + 16) + (64 * 9 + 16) + (8 * 16 + 32),
            16 * (16 + 8 + 16),
        ),
        # The same from 5x5 to 3x3 with 1x1 16 -> 32 as shortcut; the middle convolution beside the input.
        (
            BottleneckSpec(5, 16, 32, 3, 2, "relu", project=True, mid_channels=8),
            25 * 16 * 8 + 9 * (64 * 9 + 8 * 32 + 16 * 32),
            (16 * 8 + 16) + (64 * 9 + 16) + (8 * 32 + 64) + (16 * 32 + 64),
            25 * 16 + 9 * 16 + 9 * 32,
        ),
        # Its middle split: 3x1 8 -> 4 at 5x5 to 3x5, 1x3 4 -> 8 to 3x3.
        (
            BottleneckSpec(5, 16, 32, 3, 2, "relu", project=True, mid_channels=8, rank=4),
            25 * 16 * 8 + 15 * 8 * 3 * 4 + 9 * (4 * 3 * 8 + 8 * 32 + 16 * 32),
            (16 * 8 + 16) + 8 * 3 * 4 + (4 * 3 * 8 + 16) + (8 * 32 + 64) + (16 * 32 + 64),
            25 * 16 + 9 * 16 + 9 * 32,
        ),
        # Split without stride, wider inside: both ends of the vertical convolution beside the input.
        (
            BottleneckSpec(4, 16, 16, 3, 1, "relu", project=False, mid_channels=8, rank=24),
            16 * (16 * 8 + 2 * 8 * 3 * 24 + 8 * 16),
            (16 * 8 + 16) + 8 * 3 * 24 + (24 * 3 * 8 + 16) + (8 * 16 + 32),
            16 * (16 + 8 + 24),
        ),
        # Stride 1: the projection's input and output beside the main path's output.
        (
            BottleneckSpec(4, 8, 32, 3, 1, "relu", project=True, mid_channels=8),
            16 * (64 + 64 * 9 + 8 * 32 + 8 * 32),
            (64 + 16) + (64 * 9 + 16) + 2 * (8 * 32 + 64),
            16 * (8 + 32 + 32),
        ),
        (MaxPoolSpec(5, 3, 3, 3, 2), 0, 0, 3 * 25 + 3 * 9),
        (PoolSpec(5, 3, 3), 0, 0, 3 * 25 + 3),
        (LinearSpec(1, 6, 5), 30, 35, 11),
    ],
)
def test_costs_of_one_layer_by_hand(
    spec: LayerSpec, expected_macs: int, expected_parameters: int, expected_elements: int
) -> None:
    assert macs(spec) == expected_macs
    assert parameters(spec) == expected_parameters
    assert peak_activation_bytes(spec) == 4 * expected_elements
    assert peak_activation_bytes(spec, 1) == expected_elements


@pytest.mark.parametrize("name", [*FAMILIES, "full_space"])
def test_compiled_costs_equal_the_fold_over_each_network(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    genomes = space.sample(300, np.random.default_rng(2))
    costs = [network_cost(lower(space, space.config(genome))) for genome in genomes]
    for estimator, expected in (
        (compile_cost(space, macs), [c.macs for c in costs]),
        (compile_cost(space, parameters), [c.parameters for c in costs]),
        (compile_cost(space, peak_activation_bytes, np.maximum), [c.peak_activation_bytes for c in costs]),
    ):
        values = estimator(genomes)
        assert values.dtype == np.float64 and values.shape == (300,)
        assert np.array_equal(values, expected)


def test_compiled_cost_of_an_arbitrary_layer_function(micro_space: StagedSpace) -> None:
    rng = np.random.default_rng(3)
    milliseconds = {spec.key: rng.random() for spec in distinct_layers(micro_space)}
    estimator = compile_cost(micro_space, lambda spec: milliseconds[spec.key])
    genomes = micro_space.sample(200, rng)
    expected = [sum(milliseconds[s.key] for s in lower(micro_space, micro_space.config(g))) for g in genomes]
    np.testing.assert_allclose(estimator(genomes), expected, rtol=1e-12)


def test_compiled_cost_asks_for_each_distinct_layer_once(micro_space: StagedSpace) -> None:
    asked: list[LayerSpec] = []

    def cost(spec: LayerSpec) -> float:
        asked.append(spec)
        return 1.0

    restricted = micro_space.restrict({"kernel_size": (3,)})
    estimator = compile_cost(restricted, cost)
    assert len(asked) == len(set(asked)) and set(asked) == set(distinct_layers(micro_space))
    genomes = micro_space.sample(50, np.random.default_rng(4))
    layers = [len(lower(micro_space, micro_space.config(genome))) for genome in genomes]
    assert estimator(genomes).tolist() == layers


def test_compiled_cost_of_an_empty_population(micro_space: StagedSpace) -> None:
    empty = micro_space.sample(0, np.random.default_rng(0))
    assert compile_cost(micro_space, macs)(empty).shape == (0,)
