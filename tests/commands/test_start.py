"""Commands start fast: help and mistakes in settings need neither PyTorch nor scikit-learn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "matplotlib")
# What trains, evaluates, collects, searches and exports.
WORKING = ("ofa.runs.trained", "ofa.training.trainer", "ofa.export.evaluate", "predictors.collection.collect")
# They take 2 seconds, and are loaded where a network or a picture needs them.
SLOW = ("torchvision", "torch._dynamo")


def test_no_command_loads_anything_heavy_before_it_runs(root: Path) -> None:
    names = sorted(path.stem for path in (root / "scripts").glob("*.py"))
    assert len(names) > 10
    assert loaded(names, HEAVY, root) == []


def test_what_works_with_images_loads_torchvision_only_where_it_is_used(root: Path) -> None:
    assert loaded(WORKING, SLOW, root) == []


def loaded(names: Sequence[str], wanted: Sequence[str], root: Path) -> list[str]:
    """Return which of the `wanted` modules a new process has after it imported `names`."""
    code = (
        f"import sys, json, {', '.join(names)}; print(json.dumps([n for n in {wanted} if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'scripts'}", "PATH": "/usr/bin:/bin"},
    )
    modules: list[str] = json.loads(done.stdout)
    return modules
