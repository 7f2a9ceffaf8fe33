"""`ScoreFile`: numbers are computed once, survive the process, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa.common.errors import UserError
from ofa.common.score_file import ScoreFile


def refuse() -> float:
    raise AssertionError("a known number is computed again")


def test_numbers_are_computed_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "scores.jsonl"
    scores = ScoreFile(path)
    assert scores.value("a", lambda: 0.1) == 0.1
    assert scores.value("a", refuse) == 0.1
    scores.add("b", 2)
    again = ScoreFile(path)
    assert again.value("a", refuse) == 0.1
    assert (again["b"], "b" in again, "c" in again, len(again)) == (2.0, True, False, 2)


def test_numbers_in_memory_need_no_file() -> None:
    scores = ScoreFile()
    assert scores.value("a", lambda: 0.5) == scores.value("a", refuse) == 0.5


def test_a_line_that_was_being_written_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    ScoreFile(path).add("a", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name": "b", "va')
    assert len(ScoreFile(path)) == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"name": "a"}', "'value' is missing"),
        ('{"name": 3, "value": 1}', "name is 3; expected a text"),
        ('{"name": "a", "value": NaN}', r"Line 1 of .*scores\.jsonl is no score"),
        ("[]", "the line is \\[\\]; expected an object"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=words):
        ScoreFile(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Could not write .*the 0 scores in it are kept"):
        ScoreFile(tmp_path / "file" / "scores.jsonl").add("a", 1)
