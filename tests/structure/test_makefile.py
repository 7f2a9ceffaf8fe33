"""`make` installs PyTorch for processors alone where there is no GPU, if the package index has it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

# Stands in for the interpreter of the environment: writes down what it is asked for; an index without builds
# for processors is one without the file `cpu`.
PYTHON = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$*" in
  *"import torch"*) [ -e "{folder}/torch" ] ;;
  *+cpu*) [ -e "{folder}/cpu" ] ;;
esac
"""
INSTALL = "-m pip install --quiet --no-compile"


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or not shutil.which("make"):
        pytest.skip("other machines have no CUDA build")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(folder=tmp_path))
    python.chmod(0o755)
    return tmp_path


def install(folder: Path) -> tuple[str, list[str]]:
    """Return what `make` says, and the calls of pip."""
    command = ["make", ".venv/.installed", f"GPU={folder / 'gpu'}", f"PYTHON={folder / '.venv/bin/python'}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=env)
    calls = (folder / "calls").read_text().splitlines()
    return done.stdout, [call for call in calls if call.startswith(INSTALL)]


def test_the_build_for_processors_comes_first(folder: Path, root: Path) -> None:
    (folder / "cpu").touch()
    out, (first, second) = install(folder)
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if line.startswith("torch")]
    assert first == f"{INSTALL} {pins[0]}+cpu {pins[1]}+cpu" and len(pins) == 2
    assert second == f"{INSTALL} -c constraints.txt -e .[dev,onnx,openvino,detection]"
    assert "CUDA" not in out


def test_an_index_without_it_is_said(folder: Path) -> None:
    out, calls = install(folder)
    assert len(calls) == 2 and "no PyTorch for processors alone" in out


@pytest.mark.parametrize("file", ["gpu", "torch"])
def test_a_gpu_or_an_installed_pytorch_is_left_alone(folder: Path, file: str) -> None:
    (folder / file).touch()
    out, (call,) = install(folder)
    assert "+cpu" not in call and "CUDA" not in out
