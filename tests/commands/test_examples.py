"""The examples: notebooks run from the first cell to the last, and hold no outputs in the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
# What makes their work small; all else is as in the notebook. The whole recipe is trained by the Python of
# README, in test_readme_runs.py.
SHORTENED = """
import dataclasses
from ofa.training import Recipe

def shortened(recipe):
    phases = (dataclasses.replace(phase, epochs=1, warmup_epochs=0) for phase in recipe.phases)
    return Recipe(tuple(phases), recipe.settings)
"""
SMALL = {
    'load_recipe("demo")': 'shortened(load_recipe("demo"))',
    "count=30, calibration_images=400": "count=12, calibration_images=60",
    "rounds=5, processes=1": "rounds=1, runs_per_visit=1, warmup_runs=1, processes=1",
    # Latencies measured so briefly are wrong.
    "max_table_error=100": "max_table_error=1000",
}
# Further ones of a user's model, of which less varies then: fewer pieces are measured.
SMALL_MODEL = {
    "side = 224": "side = 32",
    "runs = 20": "runs = 2",
    "widths=(0.5, 1.0), ": "widths=(0.5, 1.0), include=['layer3*', 'layer4*'], ",
    "num_calibration=4": "num_calibration=2",
    "num_validation=4": "num_validation=2",
}
SMALL_DETECTION = {
    "num_train, num_test = 600, 150": "num_train, num_test = 60, 12",
    "side = 96": "side = 64",
    "epochs=15": "epochs=2",
    "epochs=8": "epochs=1",
    "count=40, calibration_images=200": "count=12, calibration_images=20",
    'trained, data, "test", calibration_images=200': 'trained, data, "test", calibration_images=20',
}
CHANGES = {
    "detection": SMALL_DETECTION,
    "quickstart": SMALL,
    "two_devices": SMALL,
    "your_model": SMALL | SMALL_MODEL,
}
RESULTS = {"detection": "mAP of the test images"}


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["detection", "quickstart", "two_devices", "your_model"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    # A notebook is started in its own folder; here its files go elsewhere.
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{root / 'examples'}")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = nbformat.read(path, as_version=4)
    for words, small_words in CHANGES[path.stem].items():
        (cell,) = (cell for cell in notebook.cells if words in cell.source)
        cell.source = cell.source.replace(words, small_words)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SHORTENED))
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any(RESULTS.get(path.stem, "% of the test images") in text for text in texts)
