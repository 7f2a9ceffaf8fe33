"""The settings that choose a value on a command line compose to the same value."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ofa.common.command_line import assignments, flattened
from ofa.common.config import build
from ofa.common.shipped import preset_settings, read_preset
from ofa.data.settings import DataSettings
from ofa.launch import compose


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"validation_size": None, "crop_padding": 0},
        {"validation_size": 0.25, "root": "my pictures (2)"},
        {"horizontal_flip": True, "split_seed": 3},
    ],
)
def test_what_differs_from_a_preset_comes_back(changes: dict[str, object]) -> None:
    preset = build(DataSettings, read_preset("data", "cifar10"))
    changed = dataclasses.replace(preset, **changes)  # type: ignore[arg-type]
    config = compose("train_supernet", assignments(preset_settings("data", changed)))
    values = OmegaConf.to_container(config.data)
    assert isinstance(values, dict)
    assert build(DataSettings, {str(name): value for name, value in values.items()}) == changed


def test_nested_settings_have_dotted_names_and_keep_null() -> None:
    nested = {"training": {"ema_decay": None, "seed": 1}, "space": {"resolutions": [64, 80]}}
    expected = ["training.ema_decay=null", "training.seed=1", "space.resolutions=[64,80]"]
    assert assignments(flattened(nested)) == expected


def test_lists_of_settings_come_back() -> None:
    stage = {"channels": 8, "depths": [1, 2], "activation": "relu", "squeeze_excite": True, "ratio": None}
    flat = flattened({"space": {"stages": [stage, stage], "names": ["my run (2)", "it's"]}})
    overrides = OverridesParser.create().parse_overrides(assignments(flat))
    values: dict[str, Any] = {override.key_or_group: override.value() for override in overrides}
    assert values["space.stages"] == [stage, stage]
    assert [str(name) for name in values["space.names"]] == ["my run (2)", "it's"]
