"""A run directory from an imported supernet: later stages use it like a trained run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.reading import read_json
from ofa.common.shipped import read_preset
from ofa.data.settings import DataSettings
from ofa.runs.config import data_record
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import save_supernet
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

_IMAGENET, _IMAGENET_CLASSES = "imagenet", 1000


def check_vacant(directory: RunDirectory) -> None:
    """Raise if the directory already holds a run that is no import; `save_run` compares imports.

    Raises:
        UserError: if there is a run.
    """
    if _imported_config(directory) is None:
        _refuse_run(directory)


def _imported_config(directory: RunDirectory) -> dict[str, Any] | None:
    """Return the configuration of an imported run, None if there is none."""
    if not directory.config.exists():
        return None
    config = read_json(directory.config, "run configuration")
    return config if "imported" in config else None


def _refuse_run(directory: RunDirectory) -> None:
    for file in (directory.supernet, directory.config):
        if file.exists():
            raise UserError(
                f"{directory.path} holds a run already ({file.name}). Choose another run_name, or remove "
                "that directory."
            )


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

    The same import may be repeated; one that was interrupted gives way to any.

    Raises:
        UserError: if there is another run already, or a file cannot be written.
    """
    config = {
        "space": supernet.space.to_dict(),
        "data": data_record(data),
        "imported": dict(provenance),
        "data_root": data.root,
    }
    is_interrupted = not directory.supernet.with_suffix(".json").exists()
    earlier_config = _imported_config(directory)
    if earlier_config is None or not (is_interrupted or earlier_config == json.loads(json.dumps(config))):
        _refuse_run(directory)
    write_json(directory.config, config)
    save_supernet(directory.supernet, supernet, {"imported": dict(provenance)})
