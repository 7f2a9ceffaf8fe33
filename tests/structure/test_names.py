"""Public names are nouns and verbs of the field, and docstrings say what a name alone does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("ofa", "predictors", "latency_tables", "search")

VAGUE_WORDS = """
about alone arrived asked chosen due everything followers found given guess harm here judge keep kept known
least left level levels lost made met misfits most nothing others own partial place places said settled some
something strange taken thing things told upper verdict waited wanted whole work
"""
"""Words that do not say what a value is, alone: most are adjectives, adverbs or participles."""

VAGUE_NAMES = frozenset(VAGUE_WORDS.split())

PREPOSITIONS = (
    "above|after|among|as|at|before|beside|between|by|for|from|in|of|on|per|see|than|that|to|under|until|when|"
    "where|which|whose|with|within|without"
)
BARE_LINE = re.compile(rf"\w+: (?:{PREPOSITIONS})\b")
SECTION = re.compile(r"(?:Args|Attributes):$")
POINTER = re.compile(r"See `[\w.]+`\.?$")

PUBLIC_FUNCTION = re.compile(r"[^_]|__init__$")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


def is_public(name: str) -> bool:
    return not name.startswith("_")


def public_names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the public names in a module or class, with those in its classes, and parameters."""
    for node in body:
        match node:
            case ast.ClassDef() if is_public(node.name):
                yield node.name
                yield from public_names(node.body)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if PUBLIC_FUNCTION.match(name):
                yield node.name
                yield from parameter_names(node.args)
            case ast.Assign():
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def parameter_names(arguments: ast.arguments) -> Iterator[str]:
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield argument.arg


def vague_names(path: Path, source: str) -> list[str]:
    """Return the public names of a module, its own included, that are a single vague word."""
    names = [path.stem, *public_names(ast.parse(source).body)]
    return [name for name in names if is_public(name) and name.lower() in VAGUE_NAMES]


def docstrings(source: str) -> Iterator[tuple[Documented, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield node, text


def bare_lines(source: str) -> list[str]:
    """Return the lines of Args and Attributes sections that begin with a preposition: `seed: of the run.`"""
    lines = []
    for _, text in docstrings(source):
        in_section = False
        for line in text.splitlines():
            if line and not line.startswith(" "):
                in_section = SECTION.match(line) is not None
            elif in_section and BARE_LINE.match(line.removeprefix("    ")):
                lines.append(line.strip())
    return lines


def pointers(source: str) -> list[str]:
    """Return the functions whose docstring only points elsewhere; overrides have `@override` instead."""
    return [
        node.name for node, text in docstrings(source) if isinstance(node, Function) and POINTER.match(text)
    ]


def modules(root: Path, package: str) -> Iterator[tuple[str, str]]:
    for path in sorted((root / package).rglob("*.py")):
        yield path.relative_to(root).as_posix(), path.read_text()


def finished(root: Path, package: str) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in modules(root, package))


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_say_what_they_are(package: str, root: Path) -> None:
    vague = {
        name: names for name, text in finished(root, package) if (names := vague_names(Path(name), text))
    }
    assert vague == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_have_nouns(package: str, root: Path) -> None:
    assert {name: lines for name, text in finished(root, package) if (lines := bare_lines(text))} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_docstring_only_points_elsewhere(package: str, root: Path) -> None:
    assert {name: names for name, text in finished(root, package) if (names := pointers(text))} == {}


SNIPPET = '''
"""A module."""
KEPT = 3
_FOUND = 4

class Verdict:
    """A class.

    Attributes:
        seed: of the run.
        size: size of
            a list.
    """

    seed: int
    level: float = 1.0

    def __init__(self, most: int, num_rows: int) -> None:
        """Take the numbers."""
        found = most

    def _judge(self, whole: int) -> None: ...

    def costs(self, *, wanted: int = 0) -> int:
        """See `Base.costs`."""

def best(count: int) -> int:
    """Return the best.

    Args:
        count: number of rows; see `costs`.

    Raises:
        ValueError: for a negative number.
    """
'''


def test_the_checks_find_what_they_look_for() -> None:
    assert vague_names(Path("levels.py"), SNIPPET) == ["levels", "KEPT", "Verdict", "level", "most", "wanted"]
    assert vague_names(Path("drift.py"), "def remove(num_rows: int) -> None: ...") == []
    assert bare_lines(SNIPPET) == ["seed: of the run."]
    assert pointers(SNIPPET) == ["costs"]
