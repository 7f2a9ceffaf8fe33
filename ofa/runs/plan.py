"""`plan_training`: a space and a recipe that fit a set of images, by a few written rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.errors import UserError
from ofa.data.settings import CLASSIFICATION, REGRESSION, SEGMENTATION
from ofa.graph.settings import ModelSettings
from ofa.graph.space import ImageSpace
from ofa.space.staged import StagedSpace
from ofa.training.recipe import load_recipe

if TYPE_CHECKING:
    from ofa.data.base import ImageData
    from ofa.data.settings import DataSettings

TINY, PHOTOS = "mobilenet_v3_tiny", "mobilenet_v3_small_photos"
MAX_TINY_SIDE = 48
"""Pictures up to this median short side, in pixels, get the space for small images."""

MAX_ENLARGEMENT = 1.25
"""Resolutions above the median short side times this are left out: enlarged pixels add nothing."""

FEW_IMAGES = 5_000
"""Sets in memory with fewer training images get the recipe `quick`, others `small_images`."""

BASE_IMAGES = 400
"""Training photographs for which the lengths of the recipes `photos` and `transfer` are written."""

SEGMENTATION_MODEL, SEGMENTATION_RECIPE = "ofa:unet", "segmentation"
"""Model and recipe for images with masks."""

REGRESSION_RECIPE = "regression"
"""Recipe for images with numbers."""

REGRESSION_LOSSES = {"label_smoothing": 0.0, "temperature": 1.0, "soft_loss": "squared_error"}
"""Settings of the losses of images with numbers, also with a recipe for classes."""

FOLDERS = ("image_folder", "imagenet", "segmentation_folder", "multi_label_folder", "regression_folder")
"""Image sets that are files of a folder."""

USER_MODEL = "user_model"
"""The recipe for users' models with weights for the classes of the images."""

MIN_STEPS = {USER_MODEL: 300, SEGMENTATION_RECIPE: 1500, REGRESSION_RECIPE: 1500}
"""Steps of recipes in epochs on photographs, at least."""

MAX_LENGTH = 6.0
MIN_IMAGES = 8
CACHED_SIDE = 1000


@dataclass(frozen=True)
class ImageSetFacts:
    """What the choice of a space and a recipe depends on.

    Attributes:
        num_train: number of training images.
        short_side: median short side of the training images in pixels.
        in_files: whether the images are files of a folder, read while training.
        task: kind of the outputs; see `output_kind`.
    """

    num_train: int
    short_side: int
    in_files: bool
    task: str = CLASSIFICATION


def facts_of(data: ImageData) -> ImageSetFacts:
    """Return the facts of a set of images.

    Raises:
        UserError: if a task of the user's own cannot be imported; see `output_kind`.
    """
    # It loads PyTorch, which a command does after its first word.
    from ofa.evaluation.tasks import output_kind

    in_files, task = not data.is_in_memory, output_kind(data.info.task)
    return ImageSetFacts(data.size("train"), data.short_side, in_files=in_files, task=task)


@dataclass(frozen=True)
class TrainingPlan:
    """Name of a recipe (files in `conf/phases/` and `conf/training/`), and further settings of a training."""

    recipe: str
    settings: dict[str, object]


def default_run_name(data: DataSettings) -> str:
    """Return the name of a run without one: that of the images' folder, or of the image set."""
    if data.name in FOLDERS and data.root is not None:
        return Path(data.root).expanduser().resolve().name
    return data.name


def plan_space(facts: ImageSetFacts) -> str:
    """Return the name of the space for a set of images."""
    return TINY if facts.short_side <= MAX_TINY_SIDE else PHOTOS


def plan_recipe(facts: ImageSetFacts, *, transfers: bool = False) -> str:
    """Return the name of the recipe for a set of images; `transfers`: from given weights."""
    if transfers:
        return "transfer"
    if facts.task == SEGMENTATION:
        return SEGMENTATION_RECIPE
    if facts.task == REGRESSION:
        return REGRESSION_RECIPE
    if facts.in_files:
        return "photos"
    return "quick" if facts.num_train < FEW_IMAGES else "small_images"


def plan_model_recipe(facts: ImageSetFacts, model: ModelSettings, has_new_classifier: bool) -> str:
    """Return the name of the recipe for a user's model.

    Args:
        facts: facts about the images.
        model: the model; without weights it is trained from scratch, like a space.
        has_new_classifier: whether its classifier is new, because the images have other classes.
    """
    if not model.has_weights:
        return plan_recipe(facts)
    return "transfer" if has_new_classifier else USER_MODEL


def plan_training(
    facts: ImageSetFacts,
    space: StagedSpace | None,
    recipe: str,
    *,
    length: float = 1.0,
    cache: str | None = None,
) -> TrainingPlan:
    """Return how a supernet is trained on a set of images.

    The batch is 32 for fewer than 2,000 photographs, otherwise 64, and at most a quarter of the images. The
    recipes for photographs are written for `BASE_IMAGES` of them; their length grows with the square root of
    the number, up to `MAX_LENGTH` times. Those for users' models, masks and numbers are written in
    epochs; few photographs get more of them, so that there are `MIN_STEPS`. Photographs of `CACHED_SIDE` and
    more, unless they have masks, are kept as shrunk copies.

    Args:
        facts: facts about the images.
        space: the space; None for a user's model, which keeps the given size of the images.
        recipe: name of the recipe.
        length: factor of the chosen length.
        cache: folder for shrunk copies, if there have to be any.

    Raises:
        UserError: if there are fewer than `MIN_IMAGES` images.
    """
    if facts.num_train < MIN_IMAGES:
        raise UserError(f"There are {facts.num_train} training images; expected at least {MIN_IMAGES}.")
    settings: dict[str, object] = {}
    resolutions = () if space is None else _resolutions(facts, space)
    if space is not None and resolutions != space.resolutions:
        settings["space.resolutions"] = _list_text(resolutions)
    if facts.in_files:
        if resolutions:
            settings["data.image_size"] = max(resolutions)
        settings["training.batch_size"] = _batch_size(facts.num_train)
        if facts.short_side >= CACHED_SIDE and facts.task != SEGMENTATION:
            settings["data.cache"] = cache
        length *= _length(facts, recipe)
    if facts.task == REGRESSION and recipe != REGRESSION_RECIPE:
        settings |= {f"training.{name}": value for name, value in REGRESSION_LOSSES.items()}
    if round(length, 2) != 1.0:
        settings["training.length"] = f"{length:.2f}"
    return TrainingPlan(recipe, settings)


def _length(facts: ImageSetFacts, recipe: str) -> float:
    """Return the factor of a recipe's length for photographs."""
    if recipe not in MIN_STEPS:
        return min(max(math.sqrt(facts.num_train / BASE_IMAGES), 0.5), MAX_LENGTH)
    num_epochs = sum(phase.epochs or 0 for phase in load_recipe(recipe).phases)
    steps_per_epoch = math.ceil(facts.num_train / _batch_size(facts.num_train))
    return max(1.0, MIN_STEPS[recipe] / (num_epochs * steps_per_epoch))


def suggested_settings(facts: ImageSetFacts, space: ImageSpace, batch_size: int) -> dict[str, object]:
    """Return by name the settings of a training of photographs that would fit them better than its own."""
    if not facts.in_files:
        return {}
    settings: dict[str, object] = {}
    if isinstance(space, StagedSpace):
        resolutions = _resolutions(facts, space)
        if set(space.allowed_resolutions) - set(resolutions):
            settings["space.resolutions"] = _list_text(resolutions)
    if batch_size > (largest := _batch_size(facts.num_train)):
        settings["training.batch_size"] = largest
    return settings


def _list_text(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"


def _resolutions(facts: ImageSetFacts, space: StagedSpace) -> tuple[int, ...]:
    """Return the resolutions of the space that are not above the pictures' own; the two smallest always."""
    if not facts.in_files:
        return space.resolutions
    ordered = sorted(space.resolutions)
    fitting = [side for side in ordered if side <= MAX_ENLARGEMENT * facts.short_side]
    return tuple(fitting if len(fitting) >= 2 else ordered[:2])


def _batch_size(num_train: int) -> int:
    """Return a power of two from 2 to 64: at most a quarter of the training images."""
    return min(32 if num_train < 2000 else 64, 1 << max(num_train // 4, 2).bit_length() - 1)
