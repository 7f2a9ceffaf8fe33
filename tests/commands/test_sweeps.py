"""Sweeps: `-m` runs a command once for every combination of the values that its settings list."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# One epoch of each phase of a few small sub-networks; jobs give few images to the training.
SHORT = (
    "space.resolutions=[8]",
    *(f"phases.{phase}.epochs=1" for phase in ("largest", "kernel", "depth_1", "width_1", "width_2")),
    "phases.largest.warmup_epochs=0",
    "training.batch_size=100",
    "training.validation_images=20",
    "training.calibration_images=20",
)


def ofa(folder: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console command in a folder, with one thread."""
    return subprocess.run(
        [sys.executable, "-m", "ofa", *arguments, "threads=1"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_every_job_of_training_has_its_run_and_a_failing_one_ends_no_other(
    tmp_path: Path, root: Path
) -> None:
    done = ofa(tmp_path, root, "train", "-m", "run_name=mr", "data.validation_size=2000,1300,1301", *SHORT)
    assert done.returncode == 2
    assert (
        done.stderr.count("error: validation_size is 2000 but the training set of digits holds 1438 images")
        == 1
    )
    assert done.stderr.rstrip().splitlines()[-1] == "failed: data.validation_size=2000"
    runs = ["mr-validation_size_1300", "mr-validation_size_1301"]
    for run in runs:
        assert (tmp_path / "runs" / run / "supernet.pt").is_file()
        assert f"next: ofa collect run_name={run}" in done.stdout
    # Where Hydra keeps what the sweep was started with is hidden.
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert folders == [".sweeps", *runs]


@pytest.mark.slow
def test_every_job_of_a_search_has_its_result(tmp_path: Path, root: Path) -> None:
    source = root / "tests" / "data" / "earlier_run" / "before"
    shutil.copytree(source, tmp_path / "runs" / "before")
    old_results = {path.name for path in (tmp_path / "runs" / "before" / "search").iterdir()}
    settings = ("run_name=before", "limits.macs_m=0.5,0.8", "seed=0,1", "search.generations=3")
    done = ofa(tmp_path, root, "search", "-m", *settings)
    assert (done.returncode, done.stderr) == (0, "")
    new_results = {
        path.name for path in (tmp_path / "runs" / "before" / "search").glob("*.json")
    } - old_results
    limits = ("0.5MMACs", "0.8MMACs")
    assert new_results == {f"my_cpu-{limit}-seed_{seed}.json" for limit in limits for seed in (0, 1)}


@pytest.mark.slow
def test_every_job_of_an_export_has_its_bundle(tmp_path: Path, root: Path) -> None:
    source = root / "tests" / "data" / "earlier_run" / "before"
    shutil.copytree(source, tmp_path / "runs" / "before")
    bundles = tmp_path / "runs" / "before" / "bundles"
    old_names = {path.name for path in bundles.iterdir()}
    settings = ("run_name=before", "subnet=smallest,largest", "calibration_images=20,30", "formats=[]")
    done = ofa(tmp_path, root, "export", "-m", *settings)
    assert (done.returncode, done.stderr) == (0, "")
    new_names = {path.name for path in bundles.iterdir()} - old_names
    assert new_names == {f"{n}-calibration_images_{c}" for n in ("smallest", "largest") for c in (20, 30)}
