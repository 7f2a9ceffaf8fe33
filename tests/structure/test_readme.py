"""README is short, its commands compose, its Python imports what exists; so do examples of other pages."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from page_commands import BLOCK, block_commands, span_commands

from ofa.common.cli import COMMANDS
from ofa.common.errors import UserError
from ofa.launch import compose

MAX_LINES = 90
ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def check(words: list[str]) -> None:
    """Raise unless the sub-command is known, and composes with nothing missing."""
    name, *settings = words
    assert name in COMMANDS, name
    command = getattr(importlib.import_module(COMMANDS[name]), COMMANDS[name])
    missing = OmegaConf.missing_keys(compose(COMMANDS[name], settings, command.schema))
    assert not missing, f"{name} lacks {missing}"


def imports(text: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of every import of the Python blocks."""
    for language, block in BLOCK.findall(text):
        if language == "python":
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield from ((node.module, alias.name) for alias in node.names)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_LINES


def test_readme_shows_the_whole_way() -> None:
    names = [words[0] for words in block_commands((ROOT / "README.md").read_text())]
    assert names == ["find", "find", "search", "export"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_code_blocks_compose(page: Path) -> None:
    for words in block_commands(page.read_text()):
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_are_known(page: Path) -> None:
    for name, *_ in span_commands(page.read_text()):
        assert name in COMMANDS, name


def test_every_command_is_described() -> None:
    text = (ROOT / "docs" / "guide.md").read_text() + (ROOT / "docs" / "interoperability.md").read_text()
    described = {words[0] for words in [*block_commands(text), *span_commands(text)]}
    assert described >= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_examples_import_what_exists(page: Path) -> None:
    for module, name in imports(page.read_text()):
        assert module.split(".")[0] == "torchvision" or hasattr(importlib.import_module(module), name), name


def test_readme_and_the_python_page_show_the_same_lines() -> None:
    readme, page = (BLOCK.findall(path.read_text()) for path in (ROOT / "README.md", ROOT / "docs/python.md"))
    assert [block for language, block in readme if language == "python"] == [page[0][1]]


def test_a_wrong_command_is_noticed() -> None:
    text = (
        '```\nA="x=1"\ntorchrun --n=2 -m ofa train $A \\\n    y=2  # why\n```\nand `ofa fit z=3`, `ofa NAME`'
    )
    assert [*block_commands(text)] == [["train", "x=1", "y=2"]]
    assert [*span_commands(text)] == [["fit", "z=3"]]
    with pytest.raises(AssertionError, match="tarin"):
        check(["tarin"])
    with pytest.raises(AssertionError, match="subnet"):
        check(["export"])
    with pytest.raises(UserError, match="formatz"):
        check(["export", "subnet=a", "formatz=[onnx]"])
