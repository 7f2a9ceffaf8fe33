"""Prints the oldest versions that pyproject.toml allows, as constraints: `oldest_versions.py EXTRA ...`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def minimums(pyproject: Path, extras: Iterable[str]) -> dict[str, str]:
    """Return the oldest allowed version of every package that the project and its `extras` need.

    Raises:
        ValueError: if a requirement is not written `name>=version`, or one package has two minimums.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    versions: dict[str, str] = {}
    for name, version in map(_parse, requirements):
        if versions.setdefault(name, version) != version:
            raise ValueError(f"{name} has the minimums {versions[name]} and {version}")
    return versions


def _parse(requirement: str) -> tuple[str, str]:
    name, separator, version = requirement.partition(">=")
    if not separator or not version.replace(".", "").isdigit():
        raise ValueError(f"{requirement} is not written name>=version")
    return name, version


def lines(pyproject: Path, extras: Iterable[str]) -> Iterator[str]:
    """Yield a line `name==version` for every package of `minimums`."""
    for name, version in sorted(minimums(pyproject, extras).items()):
        yield f"{name}=={version}"


if __name__ == "__main__":
    print("\n".join(lines(ROOT / "pyproject.toml", sys.argv[1:])))
