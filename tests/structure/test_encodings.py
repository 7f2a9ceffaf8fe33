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
        if isinstance(node, ast.Call) and not any(keyword.arg == "encoding" for keyword in node.keywords):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            mode = next((arg.value for arg in node.args if isinstance(arg, ast.Constant)), "r")
            if name == "open" and "b" not in str(mode) and owner != "os" and not owner[:1].isupper():
                yield node.lineno
            if name in ("read_text", "write_text") and owner:
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
    calls = ("p.read_text()", "f(p).read_text()", "p.open()", "p.open('wb')", "open(p, 'w')", "Image.open(p)")
    others = ("p.write_text(x, encoding='utf-8')", "os.open(p)", "read_text(p)", "p.write_text(x)")
    assert list(without_encoding("\n".join([*calls, *others]))) == [1, 2, 3, 5, 10]
