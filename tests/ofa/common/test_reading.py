"""What is refused while a file is read, by name and within a moment: size, depth, aliases, numbers, paths."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ofa.common.display import MAX_TEXT, printable_text, short_repr, short_text
from ofa.common.errors import UserError, unknown_name
from ofa.common.plain_values import MAX_DEPTH, checked_integer, checked_number, checked_text, parse_json
from ofa.common.reading import path_inside, read_bytes, read_json, read_text, read_yaml

ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 deep"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "nested more than 64 deep"),
        ("[" * 100_000, "nested more than 64 deep"),
        (f'{{"a": {"[" * 100}{"]" * 100}}}', "nested more than 64 deep"),
        (f'{{"a": {"9" * 5000}}}', "an integer of thousands of digits"),
        (f'{{"a": {10**40}}}', "an integer of more than 64 bits"),
        ('{"a": NaN}', "holds nan in place of a number at a"),
        ('{"a": [-Infinity]}', "holds -inf in place of a number at a.0"),
        ('{"a": {"b": 1e999}}', "holds inf in place of a number at a.b"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "has the entry 'c' twice"),
        (f'{{"a": [{"[]," * 2_000_001}1]}}', "holds more than 2,000,000 lists and objects"),
        (f'{{"a": ["{"x" * 200_000}"]}}', "holds a text of 200,000 characters at a.0: 'xxxx"),
        (f'{{"{"x" * 200_000}": 1}}', "holds a text of 200,000 characters: 'xxxx"),
    ],
)
def test_json_that_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    start = time.monotonic()
    with pytest.raises(UserError, match=f"The thing .*x.json is damaged: it .*{reason}"):
        read_json(tmp_path / "x.json", "thing")
    assert time.monotonic() - start < 2


def test_values_that_are_written_are_read_as_they_are() -> None:
    values: dict[str, Any] = {"a": [1, -2.5, 1e300, True, None, {}], "é猫😀": "line\n\ttext", "n": 2**63 - 1}
    deep: Any = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert parse_json(json.dumps({**values, "deep": deep})) == {**values, "deep": deep}


def test_texts_come_without_what_acts_on_a_terminal() -> None:
    values = {"\x1b[31mkey": ["\x1b]0;title\x07", "\x9b2J", "\u202eevil", "\ud800", "👩\u200d🚀"]}
    (key, texts) = next(iter(parse_json(json.dumps(values)).items()))
    assert (key, texts) == ("�[31mkey", ["�]0;title�", "�2J", "�evil", "�", "👩\u200d🚀"])
    for text in (key, *texts):
        text.encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIAS_BOMB, r"it refers to a value of its own, \*a0"),
        ("a: &b [1]\nc: *b\n", r"\*b"),
        ("- a\n" * 600_000, "more than 500,000 values, lists and objects"),
        ("[" * 5000 + "]" * 5000, "deep|recursion|nest"),
        ("a: {b: " * 100 + "1" + "}" * 100, "deep|expected"),
        ("a: .nan", "holds nan"),
        ("a: .inf", "holds inf"),
        ("a: 2020-02-30", "day is out of range"),
        ("a: 2020-02-20", "holds a date"),
        (f"a: {'9' * 5000}", "digits"),
        ("? [1, 2]\n: 3", "unhashable|hashable"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: [1", "expected"),
        ("a: \xff".encode("latin-1").decode("latin-1"), None),
    ],
)
def test_yaml_that_is_refused(text: str, reason: str | None, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(text.encode("utf-8" if reason else "latin-1"))
    start = time.monotonic()
    with pytest.raises(
        UserError, match=f"(?s)The thing .*x.yaml cannot be read as YAML.*{reason or 'codec'}"
    ):
        read_yaml(tmp_path / "x.yaml", "thing")
    assert time.monotonic() - start < 20


def test_plain_yaml_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [1, 2.5, x]\nb: {c: null, d: true}\n")
    assert read_yaml(tmp_path / "x.yaml", "thing") == {"a": [1, 2.5, "x"], "b": {"c": None, "d": True}}


def test_large_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(10**12)  # a hole: the file takes no room
    with pytest.raises(UserError, match=r"has 1,000,000 MB; expected at most 34 MB"):
        read_bytes(tmp_path / "x", "thing")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("pipe", "circle", "dangling", ".", "none", "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="No thing at"):
            read_bytes(tmp_path / name, "thing")


def test_text_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\xc3\xa9t\xc3\xa9\r\n\x1b[2Jcat\n")
    assert read_text(tmp_path / "names", "names") == "été\n�[2Jcat\n"
    (tmp_path / "names").write_bytes(b"\xe9t\xe9")
    with pytest.raises(UserError, match="names cannot be read: 'utf-8' codec"):
        read_text(tmp_path / "names", "class names")


def test_named_files_stay_in_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "models").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (folder / "models" / "a").write_text("x")
    (folder / "inside").symlink_to("models/a")
    for name in ("models/a", "inside", "not there"):
        assert path_inside(folder, name, "bundle") == folder / name
    outside = ("../secret", "models/../../secret", str(tmp_path / "secret"), "link", "up/secret", "", "..")
    for name in (*outside, "a\0b", r"..\secret", "C:/x"):
        with pytest.raises(UserError, match="names the file .*, which is not inside that folder"):
            path_inside(folder, name, "bundle")


@pytest.mark.parametrize("value", ["1", True, None, [1], float("nan"), float("inf")])
def test_numbers_are_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="x is .*; expected a number"):
        checked_number(value, "x")
    with pytest.raises(ValueError, match="x is .*; expected an integer"):
        checked_integer(value, "x")


def test_checked_values_are_returned() -> None:
    assert (checked_number(2, "x"), checked_integer(0, "x"), checked_text("a", "x")) == (2.0, 0, "a")
    with pytest.raises(ValueError, match="x is -1; expected an integer of at least 0"):
        checked_integer(-1, "x")
    with pytest.raises(ValueError, match="x is 1; expected a text"):
        checked_text(1, "x")


def test_errors_are_short_and_print_nothing_but_text() -> None:
    key = "k\x1b[2J" * 1_000_000
    for error in (UserError(f"The key {key!r} is unknown."), unknown_name("key", key, ["known"])):
        assert len(str(error)) <= MAX_TEXT and "\x1b" not in str(error)
    assert len(short_repr({key: [key] * 100, "x": {"y": [[[[key]]]]}})) < 1000
    assert len(short_text(key)) <= 120 and short_repr(10**5000) == "a long int"
    assert printable_text("a\tb\nc\r\nd\x00") == "a\tb\nc\nd�"
