"""`open_run`: a trained run with its supernet and its images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from ofa.common.accelerator import choose_accelerator
from ofa.common.errors import UserError
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.graph.space import ImageSpace
from ofa.runs.config import RunConfig, load_data_settings
from ofa.runs.directory import RunDirectory
from ofa.runs.own_code import check_own_code, name_own_code, with_task
from ofa.runs.supernet_file import AnySupernet, load_supernet
from ofa.runs.supernet_info import SupernetInfo, trained_space


@dataclass(frozen=True)
class TrainedRun:
    """A trained run with what its later stages need; the supernet is on `device`, in eval mode."""

    directory: RunDirectory
    supernet: AnySupernet
    info: SupernetInfo
    data: ImageData
    device: torch.device

    @property
    def trained_space(self) -> ImageSpace:
        """The space that the supernet was trained on, with its restriction."""
        return trained_space(self.info)


@dataclass(frozen=True)
class RunImages:
    """The folder of a run with its images; there may be no supernet."""

    directory: RunDirectory
    data: ImageData
    device: torch.device


def open_images(
    config: RunConfig, settings: DataSettings | None = None, task: str | None = None
) -> RunImages:
    """Load the images of a run, or others, for work that needs no supernet.

    Args:
        config: names the run.
        settings: other images, whose own code the user names; None for those of the run.
        task: task of the user's own that the user names; None for that of the settings.

    Raises:
        UserError: if there is no such run and no images are given, or the images cannot be loaded; for a run,
            see `check_own_code`.
    """
    device = choose_accelerator(config.accelerator, config.threads)
    directory = config.directory
    settings = with_task(settings, task)
    if settings is None:
        data = _load_images(config, task)
    else:
        name_own_code(settings)
        data = load_data(settings)
    return RunImages(directory, data, device)


def open_run(config: RunConfig, task: str | None = None) -> TrainedRun:
    """Load the supernet and the images of a run.

    Args:
        config: names the run.
        task: task of the user's own that the user names; None for that of the run.

    Raises:
        UserError: if there is no such run, or one of its files is missing or damaged; or for code that the
            user has not named on this machine, see `check_own_code`.
    """
    device = choose_accelerator(config.accelerator, config.threads)
    directory = config.directory
    data = _load_images(config, task)
    supernet, info = load_supernet(directory.supernet)
    _check_images(config, info, data)
    # The outputs of a supernet stay in the scale of the images that it was trained on.
    data.info = dataclasses.replace(data.info, target_scale=info.target_scale or data.info.target_scale)
    return TrainedRun(directory, supernet.to(device), info, data, device)


def _load_images(config: RunConfig, task: str | None) -> ImageData:
    """Return the images of a run; an error speaks of the setting that its later stages have."""
    settings = load_data_settings(config.directory, config.data_root)
    check_own_code(settings, config.directory.config, task)
    try:
        return load_data(settings)
    except UserError as error:
        if settings.root is None and settings.source is None:
            raise UserError(
                f"Run {config.run_name!r} has no folder of images ({settings.name}). Give data_root=FOLDER."
            ) from error
        raise UserError(str(error).replace("data.root", "data_root")) from error


def _check_images(config: RunConfig, info: SupernetInfo, data: ImageData) -> None:
    """Raise the error for images of other classes or channels than those of the supernet."""
    names = data.info.class_names
    classes = info.class_names or ()
    expected_shape = info.space.in_channels, info.space.num_classes
    if (data.info.in_channels, data.info.num_classes) == expected_shape and classes in ((), names):
        return
    trained_on = f": {', '.join(classes[:10])}" if classes else ""
    raise UserError(
        f"The images of {data.info.name} have {data.info.in_channels} channels and the {len(names)} classes "
        f"{', '.join(names[:10])}; the supernet of run {config.run_name!r} takes {info.space.in_channels} "
        f"channels and tells {info.space.num_classes} classes{trained_on}. Give the data_root of such "
        f"images, or train a supernet for these that starts from it: init={config.run_name}."
    )
