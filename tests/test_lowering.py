"""Tests of ofa.lowering and ofa.layers."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from ofa.errors import UserError
from ofa.layers import ConvSpec, LinearSpec, MBConvSpec, PoolSpec, make_divisible, output_size
from ofa.lowering import distinct_layers, lower, lower_slots, slots
from ofa.space import SearchSpace
from ofa.subnet import BlockConfig, SubnetConfig


def test_layers_of_a_network_written_by_hand(micro_space: SearchSpace) -> None:
    config = SubnetConfig(12, ((BlockConfig(5, 6),), (BlockConfig(3, 2), BlockConfig(7, 4))))
    assert lower(micro_space, config) == (
        ConvSpec(12, 2, 8, 3, 1, "hard_swish"),
        MBConvSpec(12, 8, 8, 8, 3, 1, "relu", False, expand=False),
        MBConvSpec(12, 8, 48, 8, 5, 1, "relu", False),
        MBConvSpec(12, 8, 16, 16, 3, 2, "hard_swish", True),
        MBConvSpec(6, 16, 64, 16, 7, 1, "hard_swish", True),
        ConvSpec(6, 16, 24, 1, 1, "hard_swish"),
        PoolSpec(6, 24),
        ConvSpec(1, 24, 32, 1, 1, "hard_swish", batch_norm=False),
        LinearSpec(1, 32, 5),
    )


def test_slots_hold_none_where_the_network_has_no_layer(micro_space: SearchSpace) -> None:
    placed = lower_slots(micro_space, micro_space.smallest)
    assert [spec is None for spec in placed] == [i in (3, 5) for i in range(10)]
    assert tuple(spec for spec in placed if spec) == lower(micro_space, micro_space.smallest)
    assert None not in lower_slots(micro_space, micro_space.largest)


def test_distinct_layers_are_those_of_all_networks(micro_space: SearchSpace) -> None:
    for space in (micro_space, micro_space.restrict(depths=(1,), kernel_sizes=(3, 5), resolutions=(8,))):
        ranges = (space.allowed[i] for i in range(len(space.genes)))
        rows = np.unique(space.canonical(np.array(list(itertools.product(*ranges)), np.int8)), axis=0)
        used = {spec for row in rows for spec in lower(space, space.config(row))}
        layers = distinct_layers(space)
        assert set(layers) == used and len(layers) == len(used)


def test_keys_tell_layers_of_a_space_apart(full_space: SearchSpace) -> None:
    variants = {spec for slot in slots(full_space) for spec in slot.variants(full_space)}
    assert len({spec.key for spec in variants}) == len(variants) == len(distinct_layers(full_space))


def test_key_depends_on_every_cost_relevant_field() -> None:
    conv = ConvSpec(12, 8, 16, 3, 1, "relu")
    block = MBConvSpec(12, 8, 16, 8, 3, 1, "relu", False)
    changes = {
        conv: {"input_size": 6, "in_channels": 4, "out_channels": 4, "kernel_size": 1, "stride": 2}
        | {"activation": "none", "batch_norm": False},
        block: {"input_size": 6, "in_channels": 4, "mid_channels": 8, "out_channels": 16}
        | {
            "kernel_size": 5,
            "stride": 2,
            "activation": "hard_swish",
            "squeeze_excite": True,
            "expand": False,
        },
    }
    for spec, fields in changes.items():
        keys = {dataclasses.replace(spec, **{name: value}).key for name, value in fields.items()}  # type: ignore[arg-type]
        assert len(keys | {spec.key}) == len(fields) + 1
    assert PoolSpec(6, 8).key != PoolSpec(6, 16).key != PoolSpec(3, 16).key
    assert LinearSpec(1, 8, 5).key != LinearSpec(1, 8, 6).key != LinearSpec(1, 9, 6).key


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_output_size_is_that_of_a_same_convolution(stride: int, kernel_size: int) -> None:
    conv = nn.Conv2d(1, 1, kernel_size, stride, kernel_size // 2)
    for side in range(1, 12):
        assert conv(torch.zeros(1, 1, side, side)).shape[-1] == output_size(side, stride)


def test_make_divisible_on_worked_values() -> None:
    expected = {
        1: 8,
        11.9: 16,
        12: 16,
        19: 24,
        20: 24,
        28.8: 32,
        36: 40,
        43.2: 40,
        42.4: 40,
        48: 48,
        153.6: 152,
    }
    assert {channels: make_divisible(channels) for channels in expected} == expected


def test_width_multiplier_scales_all_widths(full_space: SearchSpace) -> None:
    wide = dataclasses.replace(full_space, width_multiplier=1.2)
    layers = lower(wide, wide.largest)
    blocks = [spec for spec in layers if isinstance(spec, MBConvSpec)]
    assert [spec.out_channels for spec in blocks[1::4]] == [32, 48, 96, 136, 192]
    convs = [spec.out_channels for spec in layers if isinstance(spec, ConvSpec)]
    assert convs == [24, 1152, 1536]


def test_config_outside_the_space_and_unknown_family_are_user_errors(micro_space: SearchSpace) -> None:
    with pytest.raises(UserError, match="resolution is 16"):
        lower(micro_space, dataclasses.replace(micro_space.largest, resolution=16))
    with pytest.raises(UserError, match=r"Unknown family 'mobilenet_v33'.*Did you mean 'mobilenet_v3'"):
        slots(dataclasses.replace(micro_space, family="mobilenet_v33"))
