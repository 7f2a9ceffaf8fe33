"""Latency tables that come with this project, for spaces and devices of `conf/`: `data/SPACE/DEVICE.json`."""

from __future__ import annotations

from pathlib import Path

from latency_tables.table.device import DeviceSpec, device_settings
from ofa.common.errors import UserError
from ofa.runs.directory import RunDirectory
from ofa.space.space import SearchSpace

DATA = Path(__file__).resolve().parent.parent / "data"


def shipped_table(device_name: str, space: SearchSpace) -> Path:
    """Return where the table of a device is if it is shipped with the project."""
    return DATA / space.name / f"{device_name}.json"


def find_table(run: RunDirectory, device: DeviceSpec, space: SearchSpace) -> Path:
    """Return the run's own table of a device, or the shipped one if the run has none.

    Raises:
        UserError: if there is neither; it names the tables that there are.
    """
    run_path, shipped_path = run.table(device.name), shipped_table(device.name, space)
    if run_path.is_file() or shipped_path.is_file():
        return run_path if run_path.is_file() else shipped_path
    known_names = sorted(
        path.stem for folder in (run_path, shipped_path) for path in folder.parent.glob("*.json")
    )
    known = (
        f"there are those of {', '.join(known_names)}" if known_names else "there are none of other devices"
    )
    raise UserError(
        f"No latency table of {device.name} at {run_path}; {known}.",
        stage="measure",
        settings=device_settings(device),
    )


def is_shipped(path: Path) -> bool:
    """Return whether the table is shipped with the project."""
    return path.resolve().is_relative_to(DATA)
