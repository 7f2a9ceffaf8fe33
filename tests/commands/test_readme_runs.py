"""What README shows runs: its commands on a small folder of photographs, and its Python on the digits."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from page_commands import BLOCK, block_commands
from PIL import Image
from short_way import SHORT_WAY

from ofa.common.cli import COMMANDS
from ofa.launch import Command
from predictors.baselines import BASELINES, LINEAR

# What makes the commands small; all else is as in README.
SMALL: dict[str, tuple[str, ...]] = {
    "find": SHORT_WAY,
    "search": ("search.generations=3", "max_table_error=1000"),
    "export": ("calibration_images=12",),
}


@pytest.fixture(scope="module")
def readme() -> str:
    return (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes, 30 pictures for training and 6 for testing in each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 6)):
        for label, name in enumerate(("daisy", "tulip")):
            folder = tmp_path / "photographs" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(100 * label, 100 * label + 100, (30, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return tmp_path / "photographs"


@pytest.mark.slow
def test_every_command_of_readme_runs(
    readme: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    for name, *settings in block_commands(readme):
        script = COMMANDS[name]
        command: Command[object, object] = getattr(importlib.import_module(script), script)
        command.run(*(setting.replace("=DIR", f"={photographs}") for setting in settings), *SMALL[name])
    run = tmp_path / "runs" / "mine"
    assert (run / "bundles" / "my_cpu_onnx-10ms" / "model.onnx").is_file()
    assert (run / "bundles" / "my_cpu_openvino-1ms" / "model.xml").is_file()
    assert (run / "pareto.png").is_file()
    assert (run / "pareto-my_cpu_openvino.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_measuring")
def test_the_python_of_readme_runs(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (code,) = (block for language, block in BLOCK.findall(readme) if language == "python")
    # A limit that is within reach on any machine.
    middle = "float(table.estimator(space)(space.genomes([space.middle]))[0])"
    assert code.count(" 0.4)") == 1
    # A third of the layers to measure.
    assert code.count(".for_data(data)\n") == 1
    code = code.replace(".for_data(data)\n", ".for_data(data).restrict({'resolution': (20,)})\n")
    names: dict[str, object] = {}
    exec(code.replace(" 0.4)", f" {middle})"), names)
    assert (tmp_path / "runs" / "notebook" / "bundle" / "model.onnx").is_file()
    assert names["best"].accuracy > 0.5  # type: ignore[attr-defined]
