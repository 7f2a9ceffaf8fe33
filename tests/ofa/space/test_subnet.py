"""Tests of ofa.space.subnet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from ofa.common.errors import UserError
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig

CONFIG = SubnetConfig(24, ((BlockConfig(3, 4), BlockConfig(5, 2.5)), (BlockConfig(7, 6),)))
VALUES: dict[str, Any] = {
    "resolution": 24,
    "stages": [
        {"kernel_sizes": [3, 5], "expand_ratios": [4.0, 2.5]},
        {"kernel_sizes": [7], "expand_ratios": [6.0]},
    ],
}


def test_dict_form_is_plain_json_and_comes_back_equal() -> None:
    assert CONFIG.to_dict() == VALUES
    assert SubnetConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_equal_exactly_when_the_same_network() -> None:
    same = SubnetConfig(24, ((BlockConfig(3, 4.0), BlockConfig(5, 2.5)), (BlockConfig(7, 6.0),)))
    shallower = SubnetConfig(24, ((BlockConfig(3, 4.0),), (BlockConfig(7, 6.0),)))
    assert same == CONFIG and hash(same) == hash(CONFIG) and same.id == CONFIG.id
    assert shallower != CONFIG and shallower.id != CONFIG.id


def test_id_depends_on_the_dict_form_alone() -> None:
    expected = hashlib.sha256(json.dumps(VALUES, sort_keys=True).encode()).hexdigest()
    assert expected.startswith(CONFIG.id) and len(CONFIG.id) == 10
    assert CONFIG.id == "316e5eeead"


def test_depths_and_text() -> None:
    assert CONFIG.depths == (2, 1)
    assert str(CONFIG) == "24px: 3x4 5x2.5 | 7x6"


RESNET = SubnetConfig(32, ((BlockConfig(3, 0.25),),) * 2, (0.65, 1), StemConfig(1, 1, 0.8))


def test_widths_and_stem_are_in_the_dict_form_only_where_they_exist() -> None:
    stage = {"kernel_sizes": [3], "expand_ratios": [0.25]}
    values = {
        "resolution": 32,
        "stages": [stage, stage],
        "widths": [0.65, 1.0],
        "stem": {"depth": 1, "inner_width": 1.0, "width": 0.8},
    }
    assert RESNET.to_dict() == values
    assert SubnetConfig.from_dict(json.loads(json.dumps(values))) == RESNET
    assert str(RESNET) == "32px: stem d1 w1 w0.8 | w0.65 3x0.25 | w1 3x0.25"


def test_widths_and_stem_tell_networks_apart() -> None:
    others = {
        dataclasses.replace(RESNET, widths=(0.65, 0.8)),
        dataclasses.replace(RESNET, stem=StemConfig(0, 1, 0.8)),
        dataclasses.replace(RESNET, stem=StemConfig(1, 0.8, 0.8)),
        dataclasses.replace(RESNET, stem=StemConfig(1, 1, 1)),
        dataclasses.replace(RESNET, stem=None),
    }
    assert len({config.id for config in others | {RESNET}}) == 6
    same = dataclasses.replace(RESNET, stem=StemConfig(1, 1.0, 0.8), widths=(0.65, 1.0))
    assert same == RESNET and hash(same) == hash(RESNET) and same.id == RESNET.id


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"widths": (1.0,)}, "There are 1 widths for 2 stages; expected one of each stage, or none"),
        ({"widths": (1.0, 0)}, "width of stage 1 is 0; expected a positive number"),
    ],
)
def test_wrong_widths_are_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        dataclasses.replace(RESNET, **change)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((-1, 1.0, 1.0), "depth of the stem is -1; expected an integer from 0"),
        ((1.0, 1.0, 1.0), "depth of the stem is 1.0"),
        ((1, "a", 1.0), "inner_width of the stem is 'a'; expected a positive number"),
        ((1, 1.0, -1), "width of the stem is -1"),
    ],
)
def test_wrong_stem_is_named(values: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        StemConfig(*values)


@pytest.mark.parametrize("kernel_size", [0, -3, 4, 3.0, "3", None])
def test_wrong_kernel_size_is_named(kernel_size: Any) -> None:
    with pytest.raises(UserError, match=r"kernel_size is .*; expected a positive odd integer"):
        BlockConfig(kernel_size, 4)


@pytest.mark.parametrize("expand_ratio", [0, -1.0, "4", None, float("nan")])
def test_wrong_expand_ratio_is_named(expand_ratio: Any) -> None:
    with pytest.raises(UserError, match=r"expand_ratio is .*; expected a positive number"):
        BlockConfig(3, expand_ratio)


@pytest.mark.parametrize("resolution", [0, -8, 24.0, "24"])
def test_wrong_resolution_is_named(resolution: Any) -> None:
    with pytest.raises(UserError, match="resolution is"):
        SubnetConfig(resolution, ((BlockConfig(3, 4),),))


def test_stage_without_blocks_is_named() -> None:
    with pytest.raises(UserError, match="stage 1 has depth 0"):
        SubnetConfig(24, ((BlockConfig(3, 4),), ()))


@pytest.mark.parametrize("rank", [0, -0.5, "half", None])
def test_wrong_rank_is_named(rank: Any) -> None:
    with pytest.raises(UserError, match="rank is .*; expected a positive number"):
        BlockConfig(3, 0.25, rank)


def test_ranks_are_in_the_dict_form_and_in_words_only_where_a_convolution_is_split() -> None:
    stages = ((BlockConfig(3, 0.25, 1), BlockConfig(3, 0.25, 0.5)), (BlockConfig(3, 0.35),))
    config = SubnetConfig(32, stages)
    values = config.to_dict()
    assert [stage.get("ranks") for stage in values["stages"]] == [[1.0, 0.5], None]
    assert SubnetConfig.from_dict(json.loads(json.dumps(values))) == config
    assert str(config) == "32px: 3x0.25 3x0.25r0.5 | 3x0.35"
    assert config.lines[1:] == (
        "stage 1: 2 blocks; kernels 3 3, expand 0.25 0.25, ranks 1 0.5",
        "stage 2: 1 block; kernels 3, expand 0.35",
    )
    assert "1 for no split" in config.legend and "rank" not in CONFIG.legend
    assert config.id != SubnetConfig(32, ((BlockConfig(3, 0.25),) * 2, (BlockConfig(3, 0.35),))).id


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depth": 3}, "has keys .*depth.*; expected resolution and stages"),
        ({"stages": [{"kernel_sizes": [3, 5], "expand_ratios": [4]}]}, "stage 0 has 2 kernel_sizes and 1"),
        ({"stages": [{"ks": [3], "e": [4]}]}, "stage 0 is .*; expected kernel_sizes and expand_ratios"),
        ({"stages": [{"kernel_sizes": [], "expand_ratios": []}]}, "stage 0 has depth 0"),
        (
            {"stages": [{"kernel_sizes": [3], "expand_ratios": [4], "ranks": [1, 1]}]},
            "stage 0 has 1 kernel_sizes and 1 expand_ratios and 2 ranks; expected one of each per block",
        ),
        ({"widths": 1.0}, "widths is 1.0; expected a list"),
        ({"stem": {"depth": 1}}, "stem is .*; expected depth, inner_width and width"),
        ({"stages": 3}, "stages is 3; expected a list"),
        ({"stages": [{"kernel_sizes": 3, "expand_ratios": 4}]}, "stage 0 is .*; expected two lists"),
    ],
)
def test_wrong_dict_is_a_user_error(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        SubnetConfig.from_dict(VALUES | change)


def test_a_network_in_words_has_all_its_numbers() -> None:
    blocks = (BlockConfig(3, 4), BlockConfig(7, 0.25))
    config = SubnetConfig(24, (blocks[:1], blocks), (0.65, 1.0), StemConfig(1, 0.8, 1.0))
    assert config.lines == (
        "input: 24 x 24 px",
        "stem: 1 residual layer, inner width x 0.8, width x 1",
        "stage 1: 1 block, width x 0.65; kernels 3, expand 4",
        "stage 2: 2 blocks, width x 1; kernels 3 7, expand 4 0.25",
    )
    assert "kernel side in px" in config.legend
