from __future__ import annotations

import pytest
import torch

from latency_tables.measuring.methods import METHODS
from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import distinct_layers, lower
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.space.staged import StagedSpace

BLOCK = MBConvSpec(9, 8, 16, 5, 2, "hard_swish", True, mid_channels=24)


@pytest.mark.parametrize(
    ("spec", "references"),
    [
        (BLOCK, ["slices-in9x8", "slices-in5x16"]),
        (MBConvSpec(7, 8, 8, 3, 1, "relu", False, mid_channels=24), ["slices-in7x8", "slices-in7x8"]),
        (ConvSpec(32, 3, 16, 3, 2, "relu"), ["slices-in16x16"]),
        (ConvSpec(1, 16, 24, 1, 1, "relu", batch_norm=False), ["slices-in1x16", "slices-in1x24"]),
        (PoolSpec(7, 16, 16), ["slices-in7x16", "slices-in1x16"]),
        (MaxPoolSpec(11, 8, 8, 3, 2), ["slices-in11x8", "slices-in6x8"]),
        (BottleneckSpec(8, 16, 32, 3, 2, "relu", True, mid_channels=8), ["slices-in8x16", "slices-in4x32"]),
        (LinearSpec(1, 16, 10), ["slices-in1x16"]),
    ],
    ids=lambda value: value.key if isinstance(value, LayerSpec) else "",
)
def test_a_sandwiched_layer_is_less_half_of_the_slices_at_its_ends(
    spec: LayerSpec, references: list[str]
) -> None:
    method = METHODS["sandwich"]
    found = method.references(spec)
    assert [program.key for program, _ in found] == references
    assert {weight for _, weight in found} == {0.5}
    program = method.workload(spec)
    assert program.key == spec.key
    with torch.no_grad():
        output = program.build().eval()(torch.randn(2, *program.image_shape))
        for reference, _ in found:
            images = torch.randn(2, *reference.image_shape)
            assert reference.build().eval()(images).shape == images.shape
    if spec.in_channels > 4:
        assert found[0][0].image_shape == program.image_shape
    if not isinstance(spec, LinearSpec):
        assert found[-1][0].image_shape == output.shape[1:]


def test_the_parameters_of_the_references_are_those_that_the_layer_does_not_have() -> None:
    def count(program_module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in program_module.parameters())

    sandwich, isolated = METHODS["sandwich"], METHODS["isolated"]
    less = sum(weight * count(program.build()) for program, weight in sandwich.references(BLOCK))
    alone = count(isolated.workload(BLOCK).build())
    assert count(sandwich.workload(BLOCK).build()) - less == alone
    assert [(program.key, weight) for program, weight in isolated.references(BLOCK)] == [("baseline", 1.0)]


def test_references_are_shared_and_random_numbers_left_alone(tiny_space: StagedSpace) -> None:
    state = torch.get_rng_state()
    layers = distinct_layers(tiny_space)
    keys = {program.key for spec in layers for program, _ in METHODS["sandwich"].references(spec)}
    assert len(keys) < len(layers) / 4
    maps = {(s.in_channels, s.input_size) for s in layers if s.in_channels > 4}
    assert {f"slices-in{size}x{channels}" for channels, size in maps} == keys
    assert torch.equal(torch.get_rng_state(), state)
    assert lower(tiny_space, tiny_space.smallest)
