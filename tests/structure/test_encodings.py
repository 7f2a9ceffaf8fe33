"""Texts are written and read as UTF-8, whatever the locale of the machine (`LC_ALL=C`, Windows)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("ofa", "search", "predictors", "latency_tables", "scripts")


def without_encoding(source: str) -> Iterator[int]:
    """Yield the lines of calls that read or write a text in the encoding of the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        if isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, getattr(node.func.value, "id", "")
        else:
            name, owner = getattr(node.func, "id", ""), ""
        # `os.open` and methods of classes such as `Image.open` open no texts.
        if (
            owner == "os"
            or owner[:1].isupper()
            or (name != "open" and not isinstance(node.func, ast.Attribute))
        ):
            continue
        mode = next((arg.value for arg in node.args if isinstance(arg, ast.Constant)), "r")
        opens_text = name == "open" and isinstance(mode, str) and "b" not in mode
        if name in ("read_text", "write_text") or opens_text:
            yield node.lineno


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_text_names_its_encoding(folder: str, root: Path) -> None:
    lines = {
        f"{path.relative_to(root)}:{line}"
        for path in (root / folder).rglob("*.py")
        for line in without_encoding(path.read_text(encoding="utf-8"))
    }
    assert not lines


def test_such_calls_are_seen() -> None:
    source = (
        'p.read_text()\np.open()\np.open("wb")\nopen(p, "w")\np.write_text("x", encoding="utf-8")\nos.open(p)'
    )
    assert list(without_encoding(source)) == [1, 2, 4]
