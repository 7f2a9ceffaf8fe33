"""Checks of a training before its first step: what cannot work is an error then, not hours later."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from ofa.common.distributed import World, check_batch_size
from ofa.common.errors import UserError
from ofa.common.progress import Note, unnoted
from ofa.data.base import ImageData
from ofa.evaluation.task import Task
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.batch_norm import check_batch_statistics, values_per_image
from ofa.training.known_faults import check_strided_convolutions
from ofa.training.phases import check_phases
from ofa.training.precision import check_precision
from ofa.training.recipe import Recipe
from ofa.training.settings import FinetuneSettings, TrainSettings
from ofa.training.trained_part import trained_names


def check_training(
    supernet: AbstractSupernet[nn.Module],
    data: ImageData,
    recipe: Recipe,
    device: torch.device,
    world: World,
    new_parameters: Collection[str] = (),
    task: Task | None = None,
) -> None:
    """Raise the error for a training that cannot work; nothing is changed.

    Args:
        supernet: supernet on any device.
        data: images.
        recipe: phases and settings.
        device: training device.
        world: processes that train together.
        new_parameters: names of parameters; see `Trainer`.
        task: task of the training; None for classification.

    Raises:
        UserError: if phases, settings, images and processes do not fit.
        ValueError: if a name of `new_parameters` is unknown.
    """
    settings = recipe.settings
    check_phases(recipe.phases, trained=True)
    check_precision(settings.precision, device)
    check_batch_size(settings.batch_size, world)
    data.num_batches(settings.batch_size)  # raises if there are fewer images
    known_names = {name for name, _ in supernet.named_parameters()}
    unknown_names = sorted(set(new_parameters) - known_names)
    if unknown_names:
        raise ValueError(f"new_parameters are no parameters of the supernet: {', '.join(unknown_names[:8])}")
    if (settings.mixup or settings.cutmix) and task is not None and not task.takes_class_shares:
        raise UserError(
            "mixup and cutmix mix the classes of images, which this task does not have; set both to 0."
        )
    if task is not None:
        check_losses(task, "training")
    if settings.importance not in supernet.importances:
        raise UserError(
            f"The channels of this supernet are sorted by {' or '.join(supernet.importances)}, not by "
            f"{settings.importance}; change importance."
        )
    frozen_names = [phase.name for phase in recipe.phases if phase.frozen_batch_norm]
    if frozen_names and not supernet.can_freeze_batch_norm:
        raise UserError(
            f"The phases {', '.join(frozen_names)} freeze batch norm, and the graph of this model, which "
            "computes its sub-networks, has one mode for all layers; set frozen_batch_norm to false."
        )
    if any(phase.trains == "all" for phase in recipe.phases):
        check_strided_convolutions(supernet.extract(supernet.space.smallest), device)
    for phase in recipe.phases:
        trained_names(supernet, phase)  # raises if there is nothing to train
    if not all(phase.frozen_batch_norm for phase in recipe.phases):
        _check_batch_norm(supernet, data, settings, world)


def check_losses(task: Task, group: str) -> None:
    """Raise the error for settings of the losses that mean nothing for a task.

    Args:
        task: the task, with the settings.
        group: name of the group of settings.

    Raises:
        UserError: naming them, with what to give instead.
    """
    if task.problems:
        given = " ".join(f"{group}.{name}={value}" for name, value in task.problems.items())
        raise UserError(
            f"{group} has {', '.join(task.problems)} for classes, which images with numbers do not have. "
            f"Give {given}."
        )


def with_losses_of(settings: FinetuneSettings, task: Task, note: Note = unnoted) -> FinetuneSettings:
    """Return settings whose losses mean something for a task; what is changed is noted.

    Args:
        settings: settings of a training of one network.
        task: the task with these settings.
        note: called with a line for the user.
    """
    if not task.problems:
        return settings
    changes = ", ".join(f"{name} counts as {value}" for name, value in task.problems.items())
    note(f"the images have numbers and no classes: {changes}")
    changed: Any = task.problems
    return dataclasses.replace(settings, **changed)


def _check_batch_norm(
    supernet: AbstractSupernet[nn.Module], data: ImageData, settings: TrainSettings, world: World
) -> None:
    device = next(supernet.parameters()).device

    def num_values(resolution: int) -> int | None:
        images = torch.zeros(1, data.info.in_channels, resolution, resolution, device=device)
        config = supernet.space.restrict({"resolution": (resolution,)}).smallest
        return values_per_image(supernet, lambda batch: supernet(batch, config), images)

    check_batch_statistics(
        num_values,
        supernet.space.allowed_resolutions,
        batch_size=settings.batch_size,
        num_local=settings.batch_size // (1 if settings.batch_norm == "synchronised" else world.size),
        num_calibration=min(settings.calibration_images, data.size("train")),
    )
