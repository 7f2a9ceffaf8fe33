"""Every line that tells how to go on can be copied into a shell, also for a run with an odd name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PHASES = ("largest", "kernel", "depth_1", "width_1", "width_2")
SHORT = (
    "space.resolutions=[8]",
    *(f"phases.{phase}.epochs=1" for phase in PHASES),
    # Leaves 138 images for training: a step in each epoch.
    *("phases.largest.warmup_epochs=0", "training.batch_size=100", "data.validation_size=1300"),
    *("training.validation_images=20", "training.calibration_images=20"),
)
# Effort that a line does not name.
EFFORT = {
    "collect": "count=12 calibration_images=60",
    "measure": "device.rounds=1 device.min_rounds=1 device.processes=1 max_table_error=1000",
    "search": "search.generations=3",
    "export": "'formats=[onnx]' calibration_images=60",
}
STAGES = ["collect", "fit", "measure", "search", "export", "evaluate"]


def next_line(output: str) -> str:
    """Return the command of the only line that tells how to go on."""
    (line,) = [line for line in output.splitlines() if line.startswith("next: ")]
    return line.removeprefix("next: ")


@pytest.mark.slow
def test_the_lines_of_a_pipeline_work_in_a_shell(tmp_path: Path, root: Path) -> None:
    name = "it's my $HOME run (2), =1"
    program = tmp_path / "bin" / "ofa"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ofa "$@"\n')
    program.chmod(0o755)
    environment = {"PYTHONPATH": str(root), "PATH": f"{program.parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}

    def shell(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    line = next_line(shell("ofa", "train", f"run_name={name}", *SHORT))
    for stage in STAGES:
        assert line.split()[:2] == ["ofa", stage]
        output = shell("sh", "-c", f"{line} {EFFORT.get(stage, '')}")
        if stage != STAGES[-1]:
            line = next_line(output)
    assert (tmp_path / "runs" / name / "bundles").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "runs"]
