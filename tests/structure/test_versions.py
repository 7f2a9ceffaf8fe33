"""The files that name versions agree with each other."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import oldest_versions
import pytest
import yaml

EXTRAS_OF_MAKE = ("dev", "onnx", "openvino", "detection")


def constraints(root: Path) -> dict[str, str]:
    """Return the pinned version of each package, by its normalised name."""
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {normalise(name): version for name, version in pins}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_the_oldest_versions_are_those_of_pyproject(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\ndependencies = ["b>=2.1"]\n'
        '[project.optional-dependencies]\nx = ["a>=1", "b>=2.1"]\ny = ["c>=3"]\n'
    )
    assert list(oldest_versions.lines(path, ["x"])) == ["a==1", "b==2.1"]
    assert list(oldest_versions.lines(path, [])) == ["b==2.1"]


@pytest.mark.parametrize("requirement", ["a", "a~=1.2", "a>=1,<2", "a>=1; python_version > '3'"])
def test_a_requirement_without_a_plain_minimum_is_refused(tmp_path: Path, requirement: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(f'[project]\ndependencies = ["{requirement}"]\n')
    with pytest.raises(ValueError, match="is not written name>=version"):
        oldest_versions.minimums(path, [])


def test_two_minimums_of_one_package_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\ndependencies = ["a>=1"]\n[project.optional-dependencies]\nx = ["a>=2"]\n')
    with pytest.raises(ValueError, match="a has the minimums 1 and 2"):
        oldest_versions.minimums(path, ["x"])


def test_the_program_prints_the_minimums_of_this_project(root: Path) -> None:
    program = root / "tests" / "helpers" / "oldest_versions.py"
    done = subprocess.run([sys.executable, program, "dev"], capture_output=True, text=True, check=True)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    expected = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert sorted(done.stdout.split()) == sorted(line.replace(">=", "==") for line in expected)


def test_constraints_pin_what_make_installs_at_allowed_versions(root: Path) -> None:
    pins = constraints(root)
    oldest = oldest_versions.minimums(root / "pyproject.toml", EXTRAS_OF_MAKE)
    makefile = (root / "Makefile").read_text()
    assert f"-c constraints.txt -e '.[{','.join(EXTRAS_OF_MAKE)}]'" in makefile
    for name, version in oldest.items():
        assert numbers(pins[normalise(name)]) >= numbers(version), name


def test_hooks_have_the_versions_of_make_lint(root: Path) -> None:
    hooks: dict[str, Any] = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())
    revisions = {repo["repo"].rpartition("/")[2]: repo.get("rev") for repo in hooks["repos"]}
    pins = constraints(root)
    assert revisions["ruff-pre-commit"] == f"v{pins['ruff']}"
    assert revisions["codespell"] == f"v{pins['codespell']}"


def test_the_citation_names_the_version_and_licence_of_the_project(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["authors"] == project["authors"]


@pytest.mark.parametrize("package", ["ofa", "search", "predictors", "latency_tables"])
def test_each_package_says_that_it_is_typed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).with_name("py.typed").is_file()
