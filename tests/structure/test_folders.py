"""Inside each package a folder imports only folders below it, and files and functions stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("ofa", "predictors", "latency_tables", "search")

FLOORS = {
    "ofa": (
        *(
            "common",
            "space",
            "data",
            "runtimes",
            "architecture",
            "modules",
            "supernet",
            "graph",
            "evaluation",
        ),
        *("training", "compression", "export", "published", "runs", "launch"),
    ),
    "predictors": (
        *("settings", "records", "holdout", "model", "published", "baselines", "quality", "fitting"),
        *("load", "expectation", "collection"),
    ),
    "latency_tables": ("table", "transfer", "engines", "measuring", "remote", "published"),
    "search": ("limits", "population", "result", "algorithms", "verified", "find", "reports"),
}
"""The rooms of each package from the ground up; nothing imports from a room that stands above its own."""

MAX_ROOMS = 15
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_IMPORT_S = 1.5


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a module imports anywhere, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """Return the folder or file right below the package that a module is in; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def arrows(root: Path, package: str) -> Iterator[tuple[str, str, str]]:
    """Yield importing file, its room and the imported room of every import between rooms of a package."""
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        own = parts[1] if parts[1:] not in (("__init__",), ("__main__",)) else ""
        for module in imported_modules(ast.parse(path.read_text())):
            if module.split(".")[0] == package and own and room(module) != own:
                yield path.relative_to(root).as_posix(), own, room(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_of_a_package_has_its_floor(package: str, root: Path) -> None:
    rooms = {
        path.relative_to(root / package).parts[0].removesuffix(".py")
        for path in (root / package).rglob("*.py")
    }
    assert rooms - {"__init__", "__main__", "data"} | rooms & set(FLOORS[package]) == set(FLOORS[package])
    assert len(FLOORS[package]) <= MAX_ROOMS


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_from_one_above_it(package: str, root: Path) -> None:
    floor = {name: height for height, name in enumerate(FLOORS[package])}
    upwards = {
        f"{path}: {own} -> {other}" for path, own, other in arrows(root, package) if floor[other] > floor[own]
    }
    assert not upwards


def test_no_files_import_each_other_in_a_circle(root: Path) -> None:
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if "kit_files" not in path.parts
    }
    imports = {}
    for name, path in files.items():
        names = imported_modules(ast.parse(path.read_text()))
        both = {part for module in names for part in (module, module.rpartition(".")[0])}
        # A folder that hands on names is not a part of what it is made of.
        imports[name] = {part for part in both & set(files) if not name.startswith(f"{part}.")} - {name}
    while leaves := {name for name, others in imports.items() if not others}:
        imports = {name: others - leaves for name, others in imports.items() if name not in leaves}
    assert not imports


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("folder", [*PACKAGES, "scripts", "benchmarks"])
def test_files_and_functions_are_short(folder: str, root: Path) -> None:
    for path in (root / folder).rglob("*.py"):
        source = path.read_text()
        assert source.count("\n") <= MAX_FILE_LINES, path
        for function in functions(ast.parse(source)):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{path}: {function.name}"


@pytest.mark.timing
@pytest.mark.parametrize("module", ["ofa.space", "ofa.architecture", "latency_tables.table", "search"])
def test_light_folders_load_without_torch(module: str, root: Path) -> None:
    folder = root.joinpath(*module.split("."))
    names = [
        ".".join((module, *path.relative_to(folder).with_suffix("").parts)) for path in folder.rglob("*.py")
    ]
    loaded = [name.removesuffix(".__init__") for name in names]
    code = f"import time, {', '.join(loaded)}, sys; print('torch' in sys.modules, time.process_time())"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    has_torch, seconds = answer.stdout.split()
    assert has_torch == "False"
    assert float(seconds) <= MAX_IMPORT_S
