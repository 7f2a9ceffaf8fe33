"""`plan_start`: what a training on a set of images begins with: a space or a user's model, and its recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.command_line import flattened
from ofa.common.errors import UserError
from ofa.common.shipped import preset_settings
from ofa.data.settings import SEGMENTATION, DataSettings
from ofa.graph.settings import ModelSettings
from ofa.runs.plan import (
    SEGMENTATION_MODEL,
    TrainingPlan,
    facts_of,
    plan_model_recipe,
    plan_recipe,
    plan_space,
    plan_training,
)
from ofa.space.load import load_space
from ofa.space.staged import StagedSpace

if TYPE_CHECKING:
    from ofa.data.base import ImageData
    from ofa.runs.conversion import ConvertedModel


@dataclass(frozen=True)
class StartChoice:
    """What a user chose of the start of a training.

    Attributes:
        space: space; None for a choice by the images, or for a model.
        model: user's model, whose name is None for a space.
        recipe: name of the recipe; None for a choice by the images.
        has_init: whether the weights of another training are given.
    """

    space: StagedSpace | None
    model: ModelSettings
    recipe: str | None
    has_init: bool


@dataclass(frozen=True)
class PlannedStart:
    """What a training begins with.

    Attributes:
        settings: settings of the training that choose the space or the model.
        plan: recipe and further settings.
        conversion: supernet of a user's model as it is before the training; None for a space.
    """

    settings: dict[str, object]
    plan: TrainingPlan
    conversion: ConvertedModel | None


def plan_start(
    data: ImageData,
    images: DataSettings,
    choice: StartChoice,
    *,
    length: float,
    cache: Path,
) -> PlannedStart:
    """Choose space and recipe by the images, where they are not given; a user's model is converted.

    Args:
        data: the images.
        images: their settings.
        choice: what the user chose.
        length: factor of the length of the training.
        cache: folder for shrunk copies, if there have to be any.

    Raises:
        UserError: for too few images, for a model that cannot be loaded or converted, and without a space and
            a model for a task whose outputs are not known.
    """
    facts, folder = facts_of(data), images.cache or str(cache)
    model, recipe = choice.model, choice.recipe
    if facts.task == SEGMENTATION and choice.space is None and model.name is None:
        model = dataclasses.replace(model, name=SEGMENTATION_MODEL)
    if ":" in facts.task and choice.space is None and model.name is None:
        raise UserError(
            f"Nothing is known of the outputs of the task {facts.task}, so no network can be chosen. Give a "
            "model, e.g. model=package.module:function."
        )
    if model.name is None:
        space = choice.space or load_space(plan_space(facts))
        chosen = recipe or plan_recipe(facts, transfers=choice.has_init)
        plan = plan_training(facts, space, chosen, length=length, cache=folder)
        return PlannedStart(preset_settings("space", space), plan, None)
    from ofa.runs.conversion import convert_for

    conversion = convert_for(model, data, images, 0)
    chosen = recipe or plan_model_recipe(facts, model, conversion.report.has_new_classifier)
    plan = plan_training(facts, None, chosen, length=length, cache=folder)
    return PlannedStart(_model_settings(model), plan, conversion)


def _model_settings(model: ModelSettings) -> dict[str, object]:
    """Return the settings that differ from their defaults."""
    defaults = dataclasses.asdict(ModelSettings())
    values = dataclasses.asdict(model)
    return flattened({"model": {name: value for name, value in values.items() if value != defaults[name]}})
