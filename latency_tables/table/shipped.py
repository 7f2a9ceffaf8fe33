"""Latency tables that come with this project, for spaces and devices of `conf/`: `data/SPACE/DEVICE.json`."""

from __future__ import annotations

from pathlib import Path

from ofa.runs.directory import RunDirectory
from ofa.space.staged import StagedSpace

DATA = Path(__file__).resolve().parent.parent / "data"


def find_table(run: RunDirectory, device_name: str, space: StagedSpace) -> Path:
    """Return the run's own table of a device, or the shipped one if the run has none.

    If both are missing, return the path of the run's own table.
    """
    run_path, shipped_path = run.table(device_name), DATA / space.name / f"{device_name}.json"
    return run_path if run_path.exists() or not shipped_path.exists() else shipped_path


def is_shipped(path: Path) -> bool:
    """Return whether the table is shipped with the project."""
    return path.resolve().is_relative_to(DATA)
