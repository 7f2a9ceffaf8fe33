"""`open_run`: a trained run with its supernet and its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ofa.common.accelerator import choose_accelerator
from ofa.common.errors import UserError
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.runs.config import RunConfig, load_data_settings
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from ofa.runs.supernet_info import SupernetInfo, trained_space
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet


@dataclass(frozen=True)
class TrainedRun:
    """A trained run with what its later stages need; the supernet is on `device`, in eval mode."""

    directory: RunDirectory
    supernet: Supernet
    info: SupernetInfo
    data: ImageData
    device: torch.device

    @property
    def trained_space(self) -> StagedSpace:
        """The space that the supernet was trained on, with its restriction."""
        return trained_space(self.info)


@dataclass(frozen=True)
class RunImages:
    """The folder of a run with its images; there may be no supernet."""

    directory: RunDirectory
    data: ImageData
    device: torch.device


def open_images(config: RunConfig, settings: DataSettings | None = None) -> RunImages:
    """Load the images of a run, or others, for work that needs no supernet.

    Args:
        config: names the run.
        settings: other images; None for those of the run.

    Raises:
        UserError: if there is no such run and no images are given, or the images cannot be loaded.
    """
    device = choose_accelerator(config.accelerator, config.threads)
    directory = config.directory
    if settings is None:
        settings = load_data_settings(directory, config.data_root)
    return RunImages(directory, load_data(settings), device)


def open_run(config: RunConfig) -> TrainedRun:
    """Load the supernet and the images of a run.

    Raises:
        UserError: if there is no such run, or one of its files is missing or damaged.
    """
    device = choose_accelerator(config.accelerator, config.threads)
    directory = config.directory
    data = load_data(load_data_settings(directory, config.data_root))
    supernet, info = load_supernet(directory.supernet)
    names = list(data.info.class_names)
    classes = info.provenance.get("class_names", names)
    expected_shape = info.space.in_channels, info.space.num_classes
    if (data.info.in_channels, data.info.num_classes) != expected_shape or classes != names:
        raise UserError(
            f"The images of {data.info.name} have {data.info.in_channels} channels and the classes "
            f"{', '.join(names[:10])}; run {config.run_name!r} was trained on "
            f"{info.space.in_channels} channels and {', '.join(map(str, classes[:10]))}. "
            "Give the data_root of the same images."
        )
    return TrainedRun(directory, supernet.to(device), info, data, device)
