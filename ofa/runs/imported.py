"""A run directory from an imported supernet: later stages use it like a trained run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.files import read_json, write_json
from ofa.common.shipped import read_preset
from ofa.data.settings import DataSettings
from ofa.runs.config import data_record
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import save_supernet
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

_IMAGENET, _IMAGENET_CLASSES = "imagenet", 1000


def check_vacant(directory: RunDirectory) -> None:
    """Raise if the directory already holds a run; an import that was interrupted is none.

    Raises:
        UserError: if there is a run.
    """
    if _is_interrupted(directory):
        return
    for file in (directory.supernet, directory.config):
        if file.exists():
            raise UserError(
                f"{directory.path} holds a run already ({file.name}). Choose another run_name, or remove "
                "that directory."
            )


def _is_interrupted(directory: RunDirectory) -> bool:
    """Return whether there is an import without the supernet's description, which is written last."""
    if not directory.config.exists() or directory.supernet.with_suffix(".json").exists():
        return False
    return "imported" in read_json(directory.config, "run configuration")


def fitting_images(data: DataSettings, space: StagedSpace) -> DataSettings:
    """Return the settings of the images for an imported supernet: any folder's where it is not ImageNet's.

    Nothing is read; a supernet needs no images to be imported.
    """
    if data.name != _IMAGENET or space.num_classes == _IMAGENET_CLASSES:
        return data
    folder = build(DataSettings, read_preset("data", "image_folder"), "image_folder")
    return dataclasses.replace(folder, root=data.root)


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
    write_json(directory.config, config)
    save_supernet(directory.supernet, supernet, {"imported": dict(provenance)})
