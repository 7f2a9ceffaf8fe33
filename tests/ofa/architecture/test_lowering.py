"""Tests of ofa.architecture.lowering and ofa.architecture.layer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.layer import LayerSpec, make_divisible, output_size
from ofa.architecture.lowering import distinct_layers, lower, lower_slots, slots
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.architecture.slots import Slot, gene_columns
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace, stage_gene
from ofa.space.stages import StemSpec
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig


def test_layers_of_a_network_written_by_hand(micro_space: StagedSpace) -> None:
    config = SubnetConfig(12, ((BlockConfig(5, 6),), (BlockConfig(3, 2), BlockConfig(7, 4))))
    assert lower(micro_space, config) == (
        ConvSpec(12, 2, 8, 3, 1, "hard_swish"),
        MBConvSpec(12, 8, 8, 3, 1, "relu", False, expand=False, mid_channels=8),
        MBConvSpec(12, 8, 8, 5, 1, "relu", False, mid_channels=48),
        MBConvSpec(12, 8, 16, 3, 2, "hard_swish", True, mid_channels=16),
        MBConvSpec(6, 16, 16, 7, 1, "hard_swish", True, mid_channels=64),
        ConvSpec(6, 16, 24, 1, 1, "hard_swish"),
        PoolSpec(6, 24, 24),
        ConvSpec(1, 24, 32, 1, 1, "hard_swish", batch_norm=False),
        LinearSpec(1, 32, 5),
    )


def test_layers_of_a_proxyless_network_written_by_hand(micro_proxyless: StagedSpace) -> None:
    config = SubnetConfig(12, ((BlockConfig(5, 3), BlockConfig(3, 2)), (BlockConfig(5, 6),)))
    e = 1e-3
    assert lower(micro_proxyless, config) == (
        ConvSpec(12, 2, 16, 3, 1, "relu6", bn_epsilon=e),
        MBConvSpec(12, 16, 8, 3, 1, "relu6", False, expand=False, bn_epsilon=e, mid_channels=16),
        MBConvSpec(12, 8, 16, 5, 2, "relu6", False, bn_epsilon=e, mid_channels=24),
        MBConvSpec(6, 16, 16, 3, 1, "relu6", False, bn_epsilon=e, mid_channels=32),
        MBConvSpec(6, 16, 24, 5, 1, "relu6", False, bn_epsilon=e, mid_channels=96),
        ConvSpec(6, 24, 32, 1, 1, "relu6", bn_epsilon=e),
        PoolSpec(6, 32, 32),
        LinearSpec(1, 32, 5),
    )


def test_layers_of_a_resnet_written_by_hand(micro_resnet: StagedSpace) -> None:
    quarter, half = BlockConfig(3, 0.25), BlockConfig(3, 0.5)
    config = SubnetConfig(20, ((half,), (quarter, half)), (0.75, 0.5), StemConfig(1, 0.5, 1.0))
    assert lower(micro_resnet, config) == (
        ConvSpec(20, 2, 8, 3, 2, "relu"),
        ConvSpec(10, 8, 8, 3, 1, "relu", add_input=True),
        ConvSpec(10, 8, 32, 3, 1, "relu"),
        MaxPoolSpec(10, 32, 32, 3, 2),
        BottleneckSpec(5, 32, 48, 3, 1, "relu", project=True, mid_channels=24),
        BottleneckSpec(5, 48, 48, 3, 2, "relu", project=True, mid_channels=16),
        BottleneckSpec(3, 48, 48, 3, 1, "relu", project=False, mid_channels=24),
        PoolSpec(3, 48, 48),
        LinearSpec(1, 48, 5),
    )
    without = dataclasses.replace(config, stem=StemConfig(0, 0.5, 1.0))
    layers = lower(micro_resnet, config)
    assert lower(micro_resnet, without) == (layers[0], *layers[2:])


@pytest.mark.parametrize("name", ["micro_space", "micro_proxyless", "micro_resnet", "micro_resnet_rank"])
def test_each_layer_takes_what_the_one_before_gives(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    for genome in space.sample(200, np.random.default_rng(0)):
        layers = lower(space, space.config(genome))
        for spec, following in itertools.pairwise(layers):
            assert spec.out_channels == following.in_channels
            if spec.keeps_channels:
                assert spec.in_channels == spec.out_channels
        assert layers[-1].out_channels == space.num_classes


def test_slots_hold_none_where_the_network_has_no_layer(micro_space: StagedSpace) -> None:
    placed = lower_slots(micro_space, micro_space.smallest)
    assert [spec is None for spec in placed] == [i in (3, 5) for i in range(10)]
    assert tuple(spec for spec in placed if spec) == lower(micro_space, micro_space.smallest)
    assert None not in lower_slots(micro_space, micro_space.largest)


@pytest.mark.parametrize("name", ["micro_space", "micro_proxyless", "micro_resnet", "micro_resnet_rank"])
def test_distinct_layers_are_those_of_all_networks(name: str, request: pytest.FixtureRequest) -> None:
    whole: StagedSpace = request.getfixturevalue(name)
    at_one_resolution = whole.keep_largest({"resolution": 1})
    for space in (at_one_resolution, whole.keep_largest({"depth": 1, "kernel_size": 2, "width": 2})):
        used = {spec for row in space.all_genomes() for spec in lower(space, space.config(row))}
        layers = distinct_layers(space)
        assert set(layers) == used and len(layers) == len(used)


@pytest.mark.parametrize(
    "name", ["mobilenet_v3", "proxyless_nas", "mobilenet_v2", "resnet50", "resnet50_rank"]
)
def test_keys_tell_layers_of_a_space_apart(name: str, load_space: Callable[[str], StagedSpace]) -> None:
    space = load_space(name)
    variants = {spec for slot in slots(space) for spec in slot.variants(space)}
    assert len({spec.key for spec in variants}) == len(variants) == len(distinct_layers(space))


def test_key_depends_on_every_cost_relevant_field() -> None:
    conv = ConvSpec(12, 8, 16, 3, 1, "relu")
    block = MBConvSpec(12, 8, 8, 3, 1, "relu", False, mid_channels=16)
    residual = BottleneckSpec(12, 32, 32, 3, 1, "relu", project=False, mid_channels=8)
    pool = MaxPoolSpec(12, 8, 8, 3, 2)
    changes: dict[LayerSpec, dict[str, Any]] = {
        conv: {"input_size": 6, "in_channels": 4, "out_channels": 4, "kernel_size": 1, "stride": 2}
        | {"activation": "none", "batch_norm": False, "add_input": True},
        residual: {"input_size": 6, "in_channels": 16, "mid_channels": 16, "out_channels": 16}
        | {"kernel_size": 5, "stride": 2, "activation": "relu6", "project": True, "rank": 8},
        pool: {"input_size": 6, "kernel_size": 2, "stride": 1},
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
        keys = {dataclasses.replace(spec, **{name: value}).key for name, value in fields.items()}
        assert len(keys | {spec.key}) == len(fields) + 1
    assert dataclasses.replace(pool, in_channels=4, out_channels=4).key != pool.key
    assert PoolSpec(6, 8, 8).key != PoolSpec(6, 16, 16).key != PoolSpec(3, 16, 16).key
    assert LinearSpec(1, 8, 5).key != LinearSpec(1, 8, 6).key != LinearSpec(1, 9, 6).key


def test_pooling_keeps_the_channels() -> None:
    with pytest.raises(AssertionError, match="out_channels=16"):
        PoolSpec(6, 8, 16)
    with pytest.raises(AssertionError, match="out_channels=16"):
        MaxPoolSpec(6, 8, 16, 3, 2)


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


def test_width_multiplier_scales_all_widths(full_space: StagedSpace) -> None:
    wide = dataclasses.replace(full_space, width_multiplier=1.2)
    layers = lower(wide, wide.largest)
    blocks = [spec for spec in layers if isinstance(spec, MBConvSpec)]
    assert [spec.out_channels for spec in blocks[1::4]] == [32, 48, 96, 136, 192]
    convs = [spec.out_channels for spec in layers if isinstance(spec, ConvSpec)]
    assert convs == [24, 1152, 1536]


def test_widths_of_the_published_families(load_space: Callable[[str], StagedSpace]) -> None:
    # Output channels per stage that the published checkpoints have.
    for name, expected in (
        ("proxyless_nas", [40, 24, 32, 56, 104, 128, 248, 416, 1664]),
        ("mobilenet_v2", [32, 16, 24, 32, 64, 96, 160, 320, 1280]),
    ):
        layers = lower(load_space(name), load_space(name).largest)[:-2]
        channels = [spec.out_channels for spec in layers]
        assert [c for c, before in itertools.pairwise([*channels, 0]) if c != before] == expected
    resnet = load_space("resnet50")
    widest, narrowest = lower(resnet, resnet.largest), lower(resnet, resnet.smallest)
    blocks = [spec for spec in widest if isinstance(spec, BottleneckSpec)]
    assert len(blocks) == 18
    assert [spec.out_channels for spec in blocks if spec.project] == [256, 512, 1024, 2048]
    assert [spec.mid_channels for spec in blocks if spec.project] == [88, 176, 360, 720]
    assert [spec.out_channels for spec in widest[:4]] == [32, 32, 64, 64]
    assert [spec.out_channels for spec in narrowest[:3]] == [24, 40, 40]
    assert len([spec for spec in narrowest if isinstance(spec, BottleneckSpec)]) == 2 + 2 + 4 + 2


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("micro_space", {"head_channels": (24,)}, r"head_channels are \[24\]; expected 2: of the expansion"),
        ("micro_proxyless", {"head_channels": ()}, r"head_channels are \[\]; expected 1: of the features"),
        ("micro_proxyless", {"stem": StemSpec((0,), (1.0,), (1.0,))}, "leave stem and widths out"),
        ("micro_resnet", {"family": "mobilenet_v3", "head_channels": (8, 8)}, "leave stem and widths out"),
        ("micro_resnet_rank", {"family": "mobilenet_v3", "head_channels": (8, 8)}, "leave ranks out"),
        ("micro_resnet", {"stem": None}, "needs stem and the widths of every stage"),
        ("micro_resnet", {"head_channels": (8,)}, "leave head_channels empty"),
        (
            "micro_space",
            {"family": "resnet"},
            "It needs stem .* Kernel sizes .* no squeeze-excite.* leave head",
        ),
    ],
)
def test_what_a_family_has_not_is_refused(
    name: str, change: dict[str, Any], text: str, request: pytest.FixtureRequest
) -> None:
    space = dataclasses.replace(request.getfixturevalue(name), **change)
    with pytest.raises(UserError, match=f"Space '{space.name}' of family {space.family}: .*{text}"):
        slots(space)


def test_config_outside_the_space_and_unknown_family_are_user_errors(micro_space: StagedSpace) -> None:
    with pytest.raises(UserError, match="resolution is 16"):
        lower(micro_space, dataclasses.replace(micro_space.largest, resolution=16))
    with pytest.raises(UserError, match=r"Unknown family 'mobilenet_v33'.*Did you mean 'mobilenet_v3'"):
        slots(dataclasses.replace(micro_space, family="mobilenet_v33"))


def build_conv(resolution: int, kernel_size: int, depth: int | None = None) -> ConvSpec | None:
    return None if depth == 0 else ConvSpec(resolution, 2, 4, kernel_size, 1, "relu")


@pytest.mark.parametrize(
    "genes",
    [
        {"kernel_size": 1, "resolution": 0},
        {"resolution": 0, "depth": 1},
        {"resolution": 0, "kernel_size": 1, "depth": 2, "width": 3},
    ],
)
def test_a_slot_does_not_take_one_gene_for_another(genes: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match="resolution"):
        Slot(genes, build_conv)


def test_a_slot_may_leave_out_what_has_a_default(small_space: StagedSpace) -> None:
    names = {"resolution": "resolution", "kernel_size": stage_gene("kernel_size", 0, 0)}
    specs = Slot(gene_columns(small_space, names), build_conv).variants(small_space)
    stage = small_space.stages[0]
    sizes = [(size, side) for size in small_space.resolutions for side in stage.kernel_sizes]
    assert list(specs) == [ConvSpec(size, 2, 4, side, 1, "relu") for size, side in sizes]
