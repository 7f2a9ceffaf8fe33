"""What is chosen for a set of images: space, recipe, resolutions, batch and length."""

from __future__ import annotations

import math

import pytest

from ofa.common.errors import UserError
from ofa.data.settings import MULTI_LABEL, REGRESSION, SEGMENTATION
from ofa.runs.plan import (
    BASE_IMAGES,
    MAX_LENGTH,
    ImageSetFacts,
    plan_recipe,
    plan_space,
    plan_training,
    suggested_settings,
)
from ofa.space.load import load_space


def photographs(num_train: int, short_side: int = 600) -> ImageSetFacts:
    return ImageSetFacts(num_train, short_side, in_files=True)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (ImageSetFacts(1200, 8, in_files=False), "mobilenet_v3_tiny"),
        (photographs(500, 32), "mobilenet_v3_tiny"),
        (photographs(500, 49), "mobilenet_v3_small_photos"),
        (photographs(50_000), "mobilenet_v3_small_photos"),
    ],
)
def test_small_pictures_get_the_space_for_small_pictures(facts: ImageSetFacts, name: str) -> None:
    assert plan_space(facts) == name


@pytest.mark.parametrize(
    ("num_train", "batch_size"), [(8, 2), (9, 2), (16, 4), (100, 16), (128, 32), (1999, 32), (2000, 64)]
)
def test_a_batch_is_at_most_a_quarter_of_the_photographs(num_train: int, batch_size: int) -> None:
    plan = plan_training(photographs(num_train), load_space("mobilenet_v3_small_photos"), "photos")
    assert plan.settings["training.batch_size"] == batch_size


def test_seven_photographs_are_too_few() -> None:
    with pytest.raises(UserError, match="7 training images; expected at least 8"):
        plan_training(photographs(7), load_space("mobilenet_v3_small_photos"), "photos")


@pytest.mark.parametrize(
    ("short_side", "resolutions", "image_size"),
    [(500, None, 128), (103, None, 128), (100, "[64,80,96,112]", 112), (50, "[64,80]", 80)],
)
def test_pictures_are_not_enlarged_by_more_than_a_quarter(
    short_side: int, resolutions: str | None, image_size: int
) -> None:
    plan = plan_training(photographs(500, short_side), load_space("mobilenet_v3_small_photos"), "photos")
    assert plan.settings.get("space.resolutions") == resolutions
    assert plan.settings["data.image_size"] == image_size


def test_more_photographs_are_trained_on_for_longer() -> None:
    space = load_space("mobilenet_v3_small_photos")
    lengths = {
        number: plan_training(photographs(number), space, "photos").settings.get("training.length")
        for number in (50, BASE_IMAGES, 4 * BASE_IMAGES, 100 * math.ceil(MAX_LENGTH**2) * BASE_IMAGES)
    }
    assert [*lengths.values()] == ["0.50", None, "2.00", f"{MAX_LENGTH:.2f}"]
    shorter = plan_training(photographs(BASE_IMAGES), space, "photos", length=0.25)
    assert shorter.settings["training.length"] == "0.25"


def test_the_recipe_fits_the_source_of_the_images_and_of_the_weights() -> None:
    assert plan_recipe(photographs(300)) == "photos"
    assert plan_recipe(photographs(300), transfers=True) == "transfer"
    in_memory = ImageSetFacts(1200, 8, in_files=False), ImageSetFacts(50_000, 28, in_files=False)
    assert [plan_recipe(facts) for facts in in_memory] == ["quick", "small_images"]
    tiny = load_space("mobilenet_v3_tiny")
    assert [plan_training(facts, tiny, "quick").settings for facts in in_memory] == [{}, {}]


def test_a_training_is_told_what_would_fit_its_pictures_better() -> None:
    space = load_space("mobilenet_v3_small_photos")
    assert suggested_settings(photographs(500), space, 32) == {}
    assert suggested_settings(photographs(60, 100), space, 32) == {
        "space.resolutions": "[64,80,96,112]",
        "training.batch_size": 8,
    }
    fitting = space.restrict({"resolution": (64, 80)})
    assert suggested_settings(photographs(60, 100), fitting, 8) == {}
    assert suggested_settings(photographs(3), space, 2) == {}
    assert suggested_settings(ImageSetFacts(60, 8, in_files=False), space, 64) == {}


@pytest.mark.parametrize(("short_side", "cache"), [(999, None), (1000, "copies")])
def test_large_photographs_are_kept_as_shrunk_copies(short_side: int, cache: str | None) -> None:
    space = load_space("mobilenet_v3_small_photos")
    plan = plan_training(photographs(500, short_side), space, "photos", cache="copies")
    assert plan.settings.get("data.cache") == cache


@pytest.mark.parametrize(("num_train", "length"), [(60, "6.25"), (640, "2.50"), (1600, None)])
def test_few_images_with_masks_get_more_epochs_and_no_shrunk_copies(
    num_train: int, length: str | None
) -> None:
    """The recipe has 30 epochs: 1,500 steps of 32 for 1,600 images."""
    facts = ImageSetFacts(num_train, 1200, in_files=True, task=SEGMENTATION)
    plan = plan_training(facts, None, plan_recipe(facts), cache="copies")
    assert plan.recipe == "segmentation"
    assert plan.settings.get("training.length") == length and "data.cache" not in plan.settings


def test_numbers_have_their_recipe_and_losses_with_any_other() -> None:
    facts = ImageSetFacts(400, 1200, in_files=True, task=REGRESSION)
    space = load_space("mobilenet_v3_small_photos")
    assert plan_recipe(facts) == "regression" and plan_recipe(facts, transfers=True) == "transfer"
    plan = plan_training(facts, space, "regression", cache="copies")
    # 30 epochs of 13 steps are 390; four times as many reach 1,500.
    assert plan.settings["training.length"] == f"{1500 / 390:.2f}" and plan.settings["data.cache"] == "copies"
    assert "training.soft_loss" not in plan.settings
    losses = plan_training(facts, space, "photos").settings
    assert losses["training.soft_loss"] == "squared_error" and losses["training.label_smoothing"] == 0.0
    labels = ImageSetFacts(400, 100, in_files=True, task=MULTI_LABEL)
    assert plan_recipe(labels) == "photos"
    assert "training.soft_loss" not in plan_training(labels, space, "photos").settings
