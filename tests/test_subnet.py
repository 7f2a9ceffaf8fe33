"""Tests of ofa.subnet."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ofa.errors import UserError
from ofa.subnet import BlockConfig, SubnetConfig

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


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depth": 3}, "has keys .*depth.*; expected resolution and stages"),
        ({"stages": [{"kernel_sizes": [3, 5], "expand_ratios": [4]}]}, "stage 0 has 2 kernel_sizes and 1"),
        ({"stages": [{"ks": [3], "e": [4]}]}, "stage 0 is .*; expected kernel_sizes and expand_ratios"),
        ({"stages": [{"kernel_sizes": [], "expand_ratios": []}]}, "stage 0 has depth 0"),
        ({"stages": 3}, "stages is 3; expected a list"),
        ({"stages": [{"kernel_sizes": 3, "expand_ratios": 4}]}, "stage 0 is .*; expected two lists"),
    ],
)
def test_wrong_dict_is_a_user_error(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        SubnetConfig.from_dict(VALUES | change)
