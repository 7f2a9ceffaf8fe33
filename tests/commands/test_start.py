"""Commands start fast: help and mistakes in settings need neither PyTorch nor scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "matplotlib")


def test_no_command_loads_anything_heavy_before_it_runs(root: Path) -> None:
    names = sorted(path.stem for path in (root / "scripts").glob("*.py"))
    code = f"import sys, {', '.join(names)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'scripts'}", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.strip() == "[]"
    assert len(names) > 10
