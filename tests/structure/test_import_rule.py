"""The import rule: stages talk through files, so each package stands alone."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("ofa", "predictors", "latency_tables", "search")
ALLOWED = {package: {package, "ofa"} for package in PACKAGES}
SCRIPT_FOLDERS = ("scripts", "benchmarks")


def imported_packages(source: str, package: str) -> set[str]:
    """Return the top-level names that a module imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else (node.module or "").split(".")[0])
    return found


def modules(root: Path, folder: str) -> Iterator[tuple[str, set[str]]]:
    for path in sorted((root / folder).rglob("*.py")):
        yield path.relative_to(root).as_posix(), imported_packages(path.read_text(), folder)


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b, c\ndef f():\n    from d.e import g\n    if True:\n        from . import h\n"
    assert imported_packages(source, "me") == {"a", "c", "d", "me"}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_ofa_and_themselves(package: str, root: Path) -> None:
    own = {*PACKAGES, *SCRIPT_FOLDERS, "tests", "conf"}
    wrong = {name: bad for name, found in modules(root, package) if (bad := found & own - ALLOWED[package])}
    assert wrong == {}


def test_only_the_launcher_knows_hydra(root: Path) -> None:
    users = {
        name
        for folder in (*PACKAGES, *SCRIPT_FOLDERS)
        for name, found in modules(root, folder)
        if found & {"hydra", "omegaconf"}
    }
    assert users <= {f"ofa/launch/{name}.py" for name in ("arguments", "command", "compose", "sweeps")}


def test_no_script_shadows_a_package_and_tests_are_no_package(root: Path) -> None:
    assert not {path.stem for path in (root / "scripts").glob("*.py")} & {*PACKAGES, *SCRIPT_FOLDERS, "tests"}
    assert not list((root / "tests").rglob("__init__.py"))


def test_git_ignores_nothing_that_belongs_to_the_project(root: Path) -> None:
    """What git ignores is neither linted nor committed: `runs/` in .gitignore would hide `ofa/runs/`."""
    folders = {path.parent for package in (*PACKAGES, "tests") for path in (root / package).rglob("*.py")}
    for folder in sorted(folders):
        ignored = subprocess.run(["git", "check-ignore", "-q", folder / "new_file.py"], cwd=root, check=False)
        assert ignored.returncode != 0, folder


def test_every_folder_says_what_it_is(root: Path) -> None:
    folders = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    # The kit's programs run on a device, from a folder of their own.
    lacking = [folder for folder in folders if not (folder / "__init__.py").exists()]
    assert [folder.name for folder in lacking] == ["kit_files"]


def test_every_package_is_listed_for_installation(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    folders = {
        path.parent.relative_to(root).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    # The wheel has these two folders inside the package.
    folders |= {"ofa.conf", "ofa.scripts"}
    assert set(project["tool"]["setuptools"]["packages"]) == folders
