"""The fewest layers in floating point, and the search for them, on made-up networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ofa.architecture.common_layers import ConvSpec, LinearSpec, PoolSpec
from ofa.architecture.layer import LayerSpec
from ofa.common.errors import UserError
from ofa.compression.quantisation.base import Quantise
from ofa.compression.quantisation.calibration import Images
from ofa.compression.quantisation.graph import layer_units
from ofa.compression.quantisation.search_precision import (
    MixedPrecisionSettings,
    QuantisedNetwork,
    Samples,
    quantise_network,
)
from ofa.compression.quantisation.sensitivity import choose_kept_layers, rank_layers
from ofa.runtimes.base import Files, Logits

HARM = {0: 0.1, 1: 2.0, 2: 0.05, 3: 0.7, 4: 0.2, 5: 0.05, 6: 1.0, 7: 0.05}


def additive(harm: Mapping[int, float]) -> Callable[[Collection[int]], float]:
    return lambda kept: sum(value for layer, value in harm.items() if layer not in kept)


def test_layers_are_ranked_by_the_error_that_each_makes_alone() -> None:
    assert rank_layers(sorted(HARM), additive(HARM)) == (1, 6, 3, 4, 0, 2, 5, 7)


@pytest.mark.parametrize(
    ("max_loss", "layers"), [(5.0, ()), (4.0, (1,)), (1.2, (1, 6)), (0.5, (1, 3, 6)), (0.3, (1, 3, 4, 6))]
)
def test_the_fewest_layers_that_are_enough_are_kept(max_loss: float, layers: tuple[int, ...]) -> None:
    found = choose_kept_layers(lambda: (1, 6, 3, 4, 0, 2, 5, 7), additive(HARM), max_loss, max_kept=8)
    assert found.layers == layers and found.reached
    assert found.loss == pytest.approx(additive(HARM)(layers))
    assert found.evaluations <= 2 * len(HARM)


def test_layers_of_a_wrong_ranking_are_quantised_after_all() -> None:
    found = choose_kept_layers(lambda: (0, 2, 5, 1, 6, 3, 4, 7), additive(HARM), 0.5, max_kept=8)
    assert found.layers == (1, 3, 6)


def test_the_ranking_is_not_made_when_nothing_must_be_kept() -> None:
    def ranking() -> tuple[int, ...]:
        raise AssertionError("not needed")

    assert choose_kept_layers(ranking, additive(HARM), 10.0, max_kept=8).layers == ()


def test_it_says_that_it_cannot_and_what_was_best() -> None:
    found = choose_kept_layers(lambda: (1, 6, 3, 4, 0, 2, 5, 7), additive(HARM), 0.5, max_kept=2)
    assert not found.reached and found.layers == (1, 6) and found.loss == pytest.approx(1.15)
    none = choose_kept_layers(lambda: (1,), additive(HARM), 0.5, max_kept=0)
    assert not none.reached and none.layers == () and none.evaluations == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_evaluations_are_bounded_and_reported(limit: int) -> None:
    calls: list[Collection[int]] = []
    seen: list[tuple[int, int, str]] = []

    def loss(kept: Collection[int]) -> float:
        calls.append(kept)
        return additive(HARM)(kept)

    found = choose_kept_layers(
        lambda: tuple(range(8)),
        loss,
        0.3,
        max_kept=8,
        max_evaluations=limit,
        progress=lambda *step: seen.append(step),
    )
    assert found.evaluations == len(calls) == len(set(calls)) <= limit
    assert seen[-1] == (limit, limit, "") and all(done <= total == limit for done, total, _ in seen)


def test_impossible_settings_are_user_errors() -> None:
    with pytest.raises(UserError, match="max_loss is -1"):
        choose_kept_layers(lambda: (), additive(HARM), -1, max_kept=1)
    with pytest.raises(UserError, match="keep_layers is 'some'; expected none, auto or a list"):
        MixedPrecisionSettings("some")
    with pytest.raises(UserError, match="max_loss is 101"):
        MixedPrecisionSettings("auto", 101)


# -- whole networks ------------------------------------------------------------------------------

SPECS: tuple[LayerSpec, ...] = (
    *(ConvSpec(8, 4, 4, 3, 1, "relu") for _ in range(8)),
    PoolSpec(8, 4, 4),
    LinearSpec(1, 4, 2),
)
IMAGES = 200


def reference(images: Tensor) -> Tensor:
    """Logits whose margin is the image's value."""
    value = images.flatten(1).mean(1)
    return torch.stack([value, -value], 1)


def samples() -> Samples:
    # Values from -1 to 1: a shift of the margin by s flips the answers of s/2 of the images.
    values = torch.linspace(-1, 1, IMAGES + 1)[1:] - 1 / IMAGES
    images = values.view(-1, 1, 1, 1).expand(IMAGES, 1, 2, 2)
    labels = reference(images).argmax(1)

    def validation() -> Iterable[tuple[Tensor, Tensor]]:
        return [(images, labels)]

    return Samples([np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32)], validation)


def quantise(calibration: Sequence[Images]) -> Quantise:
    return write_kept


def write_kept(keep: Collection[int]) -> Files:
    return {"model": json.dumps(sorted(keep)).encode()}


def loader(harm: Mapping[int, float]) -> Callable[[Files], Logits]:
    """Return what loads a file whose quantised layers shift the margin."""

    def load(files: Files) -> Logits:
        shift = additive(harm)(json.loads(files["model"]))
        return lambda images: reference(images + shift)

    return load


def run(harm: Mapping[int, float], settings: MixedPrecisionSettings) -> QuantisedNetwork:
    return quantise_network(layer_units(SPECS), quantise, loader(harm), reference, samples(), settings)


def test_auto_brings_the_loss_under_the_budget() -> None:
    # 8 is the linear layer's place among the operators and 9 among the layers: pooling has no operator.
    harm = {0: 0.01, 3: 0.2, 5: 0.005, 8: 0.1}
    plain = run(harm, MixedPrecisionSettings())
    assert plain.kept_units == () and plain.reference_value == 1.0
    assert plain.loss == pytest.approx(100 * 0.315 / 2, abs=0.6)
    found = run(harm, MixedPrecisionSettings("auto", 1.0))
    assert found.kept_units == (3, 9) and found.loss <= 1.0
    assert json.loads(found.files["model"]) == [3, 8]
    assert run(harm, MixedPrecisionSettings("auto", 6.0)).kept_units == (3,)


def test_auto_says_that_it_cannot_with_the_best_it_found() -> None:
    harm = dict.fromkeys(range(9), 0.1)
    with pytest.raises(UserError) as caught:
        run(harm, MixedPrecisionSettings("auto", 1.0))
    text = str(caught.value)
    assert "at most half of the 9 layers" in text and "to 1 points" in text
    assert "layers 0, 1, 2, 3 kept, loses 25" in text and "larger max_loss" in text


def test_a_list_of_layers_is_kept_as_given() -> None:
    found = run({0: 0.1, 3: 0.2}, MixedPrecisionSettings((3, 0, 3)))
    assert found.kept_units == (0, 3) and found.loss == 0
    with pytest.raises(UserError, match=r"Unknown layer 10.*0 to 9"):
        run({}, MixedPrecisionSettings((10,)))


def test_output_that_is_not_finite_is_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(files: Files) -> Logits:
        kept = json.loads(files["model"])
        return lambda images: reference(images if 2 in kept else images * torch.nan)

    found = quantise_network(
        layer_units(SPECS), quantise, load, reference, samples(), MixedPrecisionSettings("auto")
    )
    assert found.kept_units == (2,) and found.loss == 0


def test_no_calibration_images_is_a_user_error() -> None:
    empty = Samples([], samples().validation)
    with pytest.raises(UserError, match="No calibration images"):
        quantise_network(layer_units(SPECS), quantise, loader({}), reference, empty, MixedPrecisionSettings())
