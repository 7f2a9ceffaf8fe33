"""A command without a run name goes on with the newest run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ofa.launch import Command
from ofa.runs.config import RunConfig
from ofa.runs.directory import FIRST_RUN_NAME, newest_run


def make_run(folder: Path, name: str, age_s: float) -> None:
    """Write the configuration of a run that began `age_s` seconds after the epoch."""
    (folder / name).mkdir()
    (folder / name / "config.json").write_text("{}")
    os.utime(folder / name / "config.json", (age_s, age_s))


def test_the_newest_run_is_the_one_that_began_last(tmp_path: Path) -> None:
    for name, age_s in (("a", 300), ("my run (2)", 500), ("c", 400)):
        make_run(tmp_path, name, age_s)
    (tmp_path / "tables").mkdir()
    assert newest_run(str(tmp_path)) == "my run (2)"


def test_without_any_run_it_is_the_one_that_a_training_would_make(tmp_path: Path) -> None:
    assert newest_run(str(tmp_path / "nowhere")) == FIRST_RUN_NAME == "digits"


@pytest.mark.parametrize(("given", "expected"), [(None, "b"), ("a", "a")])
def test_a_command_takes_the_newest_run_and_says_so(
    given: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "a", 1)
    make_run(tmp_path, "b", 2)
    command = Command("fit_predictor", RunConfig, lambda config: config.run_name)
    values = OmegaConf.create({"run_name": given, "runs_dir": str(tmp_path)})
    assert command._typed(values).run_name == expected
    assert ("run: b, the newest" in capsys.readouterr().out) == (given is None)


def test_the_newest_run_of_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_run(tmp_path, "a", 1)
    command = Command("fit_predictor", RunConfig, lambda config: config.run_name)
    config = command._typed(OmegaConf.create({"run_name": None, "runs_dir": "~"}))
    assert (config.run_name, config.runs_dir) == ("a", str(tmp_path))
