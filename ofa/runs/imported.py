"""A run directory from an imported supernet: later stages use it like a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.data.settings import DataSettings
from ofa.runs.config import data_record
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import save_supernet
from ofa.supernet.supernet import Supernet


def check_vacant(directory: RunDirectory) -> None:
    """Raise if the directory already holds a run.

    Raises:
        UserError: if there is a run.
    """
    for file in (directory.supernet, directory.path / "config.json"):
        if file.exists():
            raise UserError(
                f"{directory.path} holds a run already ({file.name}). Choose another run_name, or remove "
                "that directory."
            )


def save_run(
    directory: RunDirectory, supernet: Supernet, data: DataSettings, provenance: Mapping[str, Any]
) -> None:
    """Write the supernet with its description, and the data settings for the run's later stages.

    Raises:
        UserError: if there is a run already, or a file cannot be written.
    """
    check_vacant(directory)
    config = {
        "space": supernet.space.to_dict(),
        "data": data_record(data),
        "imported": dict(provenance),
        "data_root": data.root,
    }
    write_json(directory.path / "config.json", config)
    save_supernet(directory.supernet, supernet, {"imported": dict(provenance)})
