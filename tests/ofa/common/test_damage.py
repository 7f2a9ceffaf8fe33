"""Damaged files are told apart: "truncated" is said of truncated files alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ofa.common.damage import json_damage, weights_damage
from ofa.common.errors import UserError
from ofa.common.reading import read_json
from ofa.common.tensors import load_tensors
from ofa.published.state import read_state

STATE = {"a": torch.arange(300.0), "b": torch.ones(3)}
OTHERS = (b"just some text of a user\n", b"\x89PNG\r\n\x1a\n" + bytes(90), b"<html>not found</html>")


def saved(legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


WHOLE = {"zip": saved(), "pickle": saved(legacy=True), "safetensors": safetensors.torch.save(STATE)}


def problem(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as info:
        read_state(path, "file of weights")
    return str(info.value)


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_weights_are_called_so_and_no_others(kind: str, tmp_path: Path) -> None:
    path, whole = tmp_path / f"x.{'safetensors' if kind == 'safetensors' else 'pth'}", WHOLE[kind]
    for size in (len(whole) // 2, len(whole) - 1):
        assert "is truncated" in problem(path, whole[:size])
    assert "is empty" in problem(path, b"")
    for content in OTHERS:
        text = problem(path, content)
        assert "is no file of weights" in text
        assert "is truncated" not in text


def test_a_damaged_file_of_full_length_is_not_called_truncated() -> None:
    content = bytearray(WHOLE["safetensors"])
    content[9:12] = b"zzz"
    assert weights_damage(bytes(content), ValueError()) == "is damaged"
    assert weights_damage(WHOLE["zip"], ValueError()) == "is damaged"
    assert weights_damage(WHOLE["pickle"], ValueError()) == "is damaged"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"a": [1, 2', "is truncated"),
        ('{"a": "tex', "is truncated"),
        ('{"a":\n', "is truncated: it ends in line"),
        ('{"a": [1, 2.', "is truncated"),
        ('{"a": 3e', "is truncated"),
        ('{"a": -', "is truncated"),
        ('{"a": tru', "is truncated"),
        ('{"a"', "is truncated"),
        ("not json", "is not valid JSON"),
        ("word", "is not valid JSON"),
        ('{"a": 1} {"b": 2}', "is not valid JSON"),
        ('{"a": tru, "b": 2}', "is not valid JSON"),
    ],
)
def test_what_is_wrong_with_json(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError) as info:
        json.loads(text)
    assert json_damage(info.value).startswith(expected)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=f"The thing .*x.json {expected}"):
        read_json(tmp_path / "x.json", "thing")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.pt").mkdir()
    with pytest.raises(UserError, match=r"No thing at .*x\.pt"):
        load_tensors(tmp_path / "x.pt", "thing")


def test_every_beginning_of_a_json_text_is_called_truncated() -> None:
    text = json.dumps({"a": [1.25, -3e-7, None, True, 'te"xt'], "b": {"c": [], "d": "é"}}, indent=1)
    for size in range(1, len(text)):
        with pytest.raises(json.JSONDecodeError) as info:
            json.loads(text[:size])
        assert json_damage(info.value).startswith("is truncated"), text[:size]
