"""What is above the tasks speaks of a metric, and not of that of classification."""

from __future__ import annotations

import re
from pathlib import Path

# Files from before there were other tasks, published predictors of ImageNet, and commands that classify.
ALLOWED = {
    "ofa/common/metric.py",
    "ofa/export/classified.py",
    "ofa/export/description.py",
    "predictors/published/predictor.py",
    "scripts/import_predictor.py",
}


def test_only_evaluation_and_classification_speak_of_top_1(root: Path) -> None:
    folders = ("ofa", "search", "predictors", "latency_tables", "scripts")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    naming = {
        path.relative_to(root).as_posix()
        for path in files
        if re.search(r"top.?1\b", path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    assert {name for name in naming if not name.startswith("ofa/evaluation/")} == ALLOWED
