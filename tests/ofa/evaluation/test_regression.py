"""Numbers of images: losses by hand, metrics against scikit-learn, and the units of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_absolute_error, r2_score
from training_run import OwnNet, make_numbers

from ofa.common.errors import UserError
from ofa.common.metric import MEAN_ABSOLUTE_ERROR, R2, metric_named, number_text
from ofa.data.target_scale import TargetScale
from ofa.evaluation.regression import RegressionTask
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.tasks import task_of
from ofa.training.checks import with_losses_of
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

PLAIN = LossSettings(label_smoothing=0.0, distillation_ratio=1.0, soft_loss="squared_error")
SCALE = TargetScale((50.0, 1e6), (10.0, 0.5))


def task(scale: TargetScale = SCALE) -> RegressionTask:
    return RegressionTask(PLAIN).in_units(scale)


def drawn(seed: int, num_images: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Return standardised outputs and targets in units of `SCALE`."""
    rng = np.random.default_rng(seed)
    targets = torch.from_numpy(rng.normal(SCALE.mean, SCALE.std, (num_images, 2)))
    noise = torch.from_numpy(rng.normal(0, 0.5, (num_images, 2)))
    return (task().standardised(targets) + noise).float(), targets


def values(outputs: torch.Tensor, targets: torch.Tensor, batch: int = 50) -> dict[str, float]:
    meter = task().meter()
    for start in range(0, len(outputs), batch):
        meter.add(outputs[start : start + batch], targets[start : start + batch])
    return meter.values()


def test_metrics_are_those_of_scikit_learn_in_the_users_units() -> None:
    outputs, targets = drawn(0)
    numbers = task().read(outputs).numpy()
    found = values(outputs, targets, batch=7)
    assert found[R2.name] == pytest.approx(r2_score(targets.numpy(), numbers), abs=1e-9)
    error = mean_absolute_error(targets.numpy(), numbers)
    assert found[MEAN_ABSOLUTE_ERROR.name] == pytest.approx(error, rel=1e-9) and error > 2
    assert task().batch_score(outputs, targets) == pytest.approx(found[R2.name], abs=1e-6)


def test_unknown_numbers_count_nowhere() -> None:
    outputs, targets = drawn(1)
    targets[::3, 0] = math.nan
    known = ~targets[:, 0].isnan()
    numbers = task().read(outputs)
    shares = [
        r2_score(targets[known, 0].numpy(), numbers[known, 0].numpy()),
        r2_score(targets[:, 1].numpy(), numbers[:, 1].numpy()),
    ]
    assert values(outputs, targets)[R2.name] == pytest.approx(np.mean(shares), abs=1e-9)
    outputs.requires_grad_()
    loss = task().loss(outputs, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None and torch.equal(outputs.grad != 0, ~targets.isnan())
    flat = ~targets.isnan()
    expected = F.smooth_l1_loss(outputs[flat].detach().double(), task().standardised(targets)[flat])
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    nothing = torch.full_like(targets, math.nan)
    assert task().loss(outputs, nothing) == 0 and task().batch_score(outputs.detach(), nothing) == 0
    assert values(outputs.detach(), nothing) == {"r2": 0.0, "mean_absolute_error": 0.0}
    assert task().meter().values() == {"r2": 0.0, "mean_absolute_error": 0.0}


@pytest.mark.parametrize("answer", [50.0, 51.0])
def test_equal_numbers_have_the_share_of_scikit_learn(answer: float) -> None:
    numbers = np.full((4, 1), 50.0)
    one = RegressionTask(PLAIN).in_units(TargetScale((50.0,), (10.0,)))
    meter = one.meter()
    meter.add(one.standardised(torch.full((4, 1), answer)), torch.from_numpy(numbers))
    assert meter.values()["r2"] == r2_score(numbers, np.full((4, 1), answer))


def test_worse_than_the_mean_is_below_zero() -> None:
    outputs, targets = drawn(2)
    assert values(outputs + 3, targets)["r2"] < -1
    assert R2.problem(-7.5) is None and MEAN_ABSOLUTE_ERROR.problem(120.0) is None
    assert (R2.sign, MEAN_ABSOLUTE_ERROR.sign) == (1.0, -1.0)
    assert metric_named("r2") == R2 and metric_named("mean_absolute_error") == MEAN_ABSOLUTE_ERROR


def test_the_scale_belongs_to_the_network() -> None:
    outputs, targets = drawn(3)
    other = TargetScale((0.0, 0.0), (1.0, 1e6))
    same_answers = task(other).standardised(task().read(outputs))
    meter = task(other).meter()
    meter.add(same_answers, targets)
    assert meter.values() == pytest.approx(values(outputs, targets), rel=1e-6)


def test_the_soft_loss_is_the_squared_distance_from_the_teacher() -> None:
    (outputs, _), (teacher, _) = drawn(4), drawn(5)
    teacher.requires_grad_()
    found = task().soft_loss(outputs.requires_grad_(), teacher, 0.5)
    assert torch.allclose(found, 0.5 * ((outputs - teacher) ** 2).mean())
    found.backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None and outputs.grad is not None


def test_lines_name_each_column() -> None:
    meter = task().meter()
    meter.add(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[60.0, 1e6 + 1], [40.0, 1e6 - 1]]))
    assert meter.details(["age", "price"]) == [
        "age: R² 1.00, MAE 0.00",
        "price: R² 0.00, MAE 1.00",
    ]
    with pytest.raises(UserError, match="tells 2 numbers; there are 1 names"):
        meter.details(["age"])


def test_settings_of_classes_are_named_with_their_remedy() -> None:
    assert task().problems == {}
    classes = RegressionTask(LossSettings(0.1, 1.0, temperature=2.0))
    expected = {"label_smoothing": 0.0, "temperature": 1.0, "soft_loss": "squared_error"}
    assert classes.problems == expected
    with pytest.raises(UserError, match="give no scale of them; set target_scale"):
        RegressionTask(PLAIN).meter()
    with pytest.raises(UserError, match="Numbers are of no class"):
        RegressionTask(PLAIN, class_weights=[1.0])


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (((), ()), "has 0 means and 0 standard"),
        (((1.0,), (1.0, 2.0)), "has 1 means and 2 standard"),
        (((1.0,), (0.0,)), "std above 0"),
        (((math.nan,), (1.0,)), "expected numbers"),
    ],
)
def test_a_scale_has_a_mean_and_a_deviation_for_each_column(
    scale: tuple[tuple[float, ...], ...], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        TargetScale(*scale)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.5, "0.50"),
        (-1.234, "-1.23"),
        (0.01234, "0.0123"),
        (12345.6, "12,346"),
        (2e12, "2e+12"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_matter(value: float, text: str) -> None:
    assert number_text(value) == text


def test_a_training_of_numbers_refuses_the_losses_of_classes() -> None:
    network = OwnNet()
    settings = FinetuneSettings(1, 0.1, 30, 0.9, 0.0, 0.1, 0.0, 0)
    with pytest.raises(
        UserError, match=r"Give finetuning.label_smoothing=0.0 finetuning.soft_loss=squared_err"
    ):
        fit(network, make_numbers(), settings, resolution=12)
    lines: list[str] = []
    fitting = with_losses_of(settings, task_of(make_numbers(), settings.loss), lines.append)
    assert fitting.label_smoothing == 0.0 and fitting.soft_loss == "squared_error" and len(lines) == 1
    assert with_losses_of(fitting, task_of(make_numbers(), fitting.loss), lines.append) is fitting
    fit(network, make_numbers(), fitting, resolution=12)
    assert len(lines) == 1
