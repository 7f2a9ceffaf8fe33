"""Names and paths among the settings: one rule for each, applied wherever a configuration is built."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ofa.common.config import ConfigError, build
from ofa.common.errors import UserError
from ofa.common.text_settings import Name, PathText, checked_name, expanded_path
from ofa.runs.directory import RunDirectory


@dataclass(frozen=True)
class Settings:
    name: Name
    path: PathText | None = None
    paths: tuple[PathText, ...] = ()


@pytest.mark.parametrize(
    "name", ["mine", "my run (2)", "a=b", "2024", "café-猫", "a.b", "-x", "it's", "$HOME"]
)
def test_names_of_one_file_are_allowed(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a/b", "contains a separator"),
        ("/absolute", "contains a separator"),
        ("..\\up", "contains a separator"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ("end ", "begins or ends with a space"),
        ("a\nb", "cannot be printed"),
        ("\x1b[31mred", "cannot be printed"),
        ("ü" * 61, "has 122 bytes"),
    ],
)
def test_names_that_leave_their_folder_or_hide_are_refused(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        checked_name(name)
    with pytest.raises(ConfigError, match=f"^name: .*{problem}"):
        build(Settings, {"name": name})
    run = RunDirectory("runs", "mine")
    for place in (run.search, run.table, run.kit, run.finetuning):
        with pytest.raises(UserError, match=problem):
            place(name)


def test_home_folders_are_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = build(Settings, {"name": "x", "path": "~/a", "paths": ["~", "b/~", "~/c d"]})
    assert settings == Settings("x", f"{tmp_path}/a", (str(tmp_path), "b/~", f"{tmp_path}/c d"))


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/x"])
def test_paths_that_are_none_are_refused(path: str) -> None:
    with pytest.raises(UserError, match="the path is empty|cannot be expanded"):
        expanded_path(path)


def test_every_setting_that_is_a_path_or_a_name_says_so(root: Path) -> None:
    """A new setting of such a name is a `PathText` or a `Name`."""
    pattern = re.compile(
        r"^    (\w*(?:name|root|file|files|path|folder|dir|output|kit|cache|table|bundle)): (str.*)"
    )
    allowed = {"class_names", "name"}  # texts shown to people; names of presets
    wrong = []
    for file in [
        *(root / "scripts").glob("*.py"),
        root / "ofa/runs/config.py",
        root / "ofa/data/settings.py",
    ]:
        for line in file.read_text().splitlines():
            match = pattern.match(line)
            if match and match[1] not in allowed:
                wrong.append(f"{file.name}: {line.strip()}")
    assert wrong == []
