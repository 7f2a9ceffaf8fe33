"""The command that an error ends in is one that can be typed: it composes with all that it needs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from latency_tables.table.shipped import DATA
from latency_tables.table.table import LatencyTable
from ofa.common.cli import COMMANDS
from ofa.common.errors import UserError
from ofa.launch import Command, compose
from ofa.space.load import load_space


@dataclass(frozen=True)
class Named:
    run_name: str = "my run (2)"
    runs_dir: str = "elsewhere"


def remedy(error: UserError) -> list[str]:
    """Return the words after `ofa` of the line that a command adds to an error."""

    def fail(config: Named) -> None:
        raise error

    with pytest.raises(UserError) as caught:
        Command("fit_predictor", Named, fail)._execute(Named())
    text, line = str(caught.value).rsplit("\nMake it with: ofa ", 1)
    assert text == str(error)
    return shlex.split(line)


# These two make no file that another command needs.
@pytest.mark.parametrize("stage", sorted(set(COMMANDS) - {"quickstart", "inspect"}))
def test_every_stage_can_be_typed(stage: str) -> None:
    name, *settings = remedy(UserError("It is missing.", stage=stage))
    config = compose(COMMANDS[name], settings)
    assert (config.run_name, config.runs_dir) == ("my run (2)", "elsewhere")
    assert not OmegaConf.missing_keys(config)


@pytest.mark.parametrize(("is_measured", "name"), [(True, "measure"), (False, "import-table")])
def test_a_table_names_the_stage_that_makes_one(is_measured: bool, name: str) -> None:
    table = LatencyTable.load(Path(DATA) / "mobilenet_v3_tiny" / "cascadelake_onnx.json")
    table = table if is_measured else replace(table, seed=None)
    other_space = replace(load_space("mobilenet_v3_tiny"), num_classes=3)
    with pytest.raises(UserError, match="was made for space") as caught:
        table.check(other_space)
    stage, *settings = remedy(caught.value)
    assert stage == name
    assert compose(COMMANDS[stage], settings).device.name == "cascadelake_onnx"
