"""Tasks: what networks are judged by is the task's business, up to the names in files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from toy_supernet import ToySupernet
from training_run import PHASES, SPACE, make_data

from ofa.common.metric import Metric
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.evaluation.classes import are_unequal, balanced_weights
from ofa.evaluation.evaluate import SubnetEvaluator, measure, score, top1
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.task import ClassificationTask, Meter, Task
from ofa.evaluation.tasks import task_of
from ofa.supernet.supernet import build_supernet
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer

DISTANCE = Metric("distance", "distance", higher_is_better=False, is_fraction=False)


class Regression(Task):
    """The first output shall be the label."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return DISTANCE, Metric("largest_error", "largest error", higher_is_better=False, is_fraction=False)

    def meter(self) -> Meter:
        return Distances()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs[:, 0], targets.float())

    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        return weight * F.mse_loss(outputs[:, 0], teacher_outputs[:, 0])


class Distances(Meter):
    def __init__(self) -> None:
        self.all: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.all.append((outputs[:, 0] - targets).abs())

    def values(self) -> dict[str, float]:
        distances = torch.cat(self.all)
        return {"distance": float(distances.mean()), "largest_error": float(distances.max())}


def test_metrics_are_those_of_all_batches_together() -> None:
    outputs, targets = torch.tensor([[1.0], [3.0], [2.5]]), torch.tensor([1, 1, 2])
    batches = [(outputs[:1], targets[:1]), (outputs[1:], targets[1:])]
    assert measure(torch.nn.Identity().eval(), batches, Regression()) == pytest.approx(
        {"distance": 2.5 / 3, "largest_error": 2.0}
    )
    assert score(lambda images: images, batches, Regression()) == pytest.approx(2.5 / 3)
    with pytest.raises(AssertionError):
        top1(torch.nn.Identity().train(), batches)


def test_classification_without_settings_has_plain_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 5, 3, generator=generator)
    labels, task = torch.tensor([0, 2, 1, 1, 0]), ClassificationTask()
    torch.testing.assert_close(task.loss(logits, labels), F.cross_entropy(logits, labels))
    torch.testing.assert_close(task.soft_loss(logits, teacher), F.cross_entropy(logits, teacher.softmax(1)))
    smooth = ClassificationTask(LossSettings(0.2, 1.0))
    torch.testing.assert_close(
        smooth.loss(logits, labels), F.cross_entropy(logits, labels, label_smoothing=0.2)
    )


def test_weights_of_classes_are_inverse_to_their_numbers_with_mean_one_over_the_images() -> None:
    assert balanced_weights((7, 7, 7)) == (1.0, 1.0, 1.0)
    weights = balanced_weights((6, 3, 0, 1))
    assert weights == pytest.approx((10 / 18, 10 / 9, 0.0, 10 / 3))
    assert sum(w * n for w, n in zip(weights, (6, 3, 0, 1), strict=True)) == pytest.approx(10)


def unequal_data(balance: str) -> MemoryData:
    """Return 40 and 20 training images of two classes, of which a tenth validates."""
    labels = torch.arange(60) % 3 // 2
    images = torch.randint(0, 255, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    settings = DataSettings("made up", validation_size=6, balance=balance)
    return MemoryData(settings, ("often", "rare"), (images, labels), (images[:9], labels[:9]))


def test_a_set_that_balances_by_its_loss_gives_its_task_the_weights() -> None:
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    logits[1, 0] = 1.0
    losses = {}
    for balance in ("none", "sampling", "loss"):
        data = unequal_data(balance)
        task = task_of(data, LossSettings(0.0, 1.0))
        losses[balance] = float(task.loss(logits, labels))
    often, rare = balanced_weights(data.class_counts("train"))
    assert rare > 1.5 * often
    by_hand = [math.log(2), math.log(1 + math.e)]
    assert losses["none"] == losses["sampling"] == pytest.approx(sum(by_hand) / 2)
    assert losses["loss"] == pytest.approx((often * by_hand[0] + rare * by_hand[1]) / 2)


def test_classes_are_called_unequal_beyond_a_ratio() -> None:
    assert are_unequal((16, 10)) and are_unequal((0, 3, 2, 5))
    assert not are_unequal((15, 10)) and not are_unequal((7, 0, 7)) and not are_unequal(())


def test_rare_classes_weigh_more_in_the_loss_and_in_nothing_else() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, teacher = torch.randn(2, 4, 3, generator=generator)
    labels, weights, smoothing = torch.tensor([0, 2, 1, 2]), (0.5, 1.0, 3.0), 0.3
    task = ClassificationTask(LossSettings(smoothing, 1.0), class_weights=weights)
    log_p, total = logits.double().log_softmax(1), 0.0
    for row, label in zip(log_p, labels, strict=True):
        shares = torch.full((3,), smoothing / 3).double()
        shares[label] += 1 - smoothing
        total -= float((torch.tensor(weights).double() * shares * row).sum())
    assert float(task.loss(logits, labels)) == pytest.approx(total / 4, rel=1e-5)
    # Labels as probabilities are the same targets.
    torch.testing.assert_close(task.loss(logits, F.one_hot(labels, 3).float()), task.loss(logits, labels))
    # A batch of one class keeps its weight.
    rare = torch.tensor([2, 2, 2, 2])
    plain = ClassificationTask(LossSettings(0.0, 1.0))
    weighted = ClassificationTask(LossSettings(0.0, 1.0), class_weights=weights)
    torch.testing.assert_close(weighted.loss(logits, rare), 3.0 * plain.loss(logits, rare))
    torch.testing.assert_close(task.soft_loss(logits, teacher), plain.soft_loss(logits, teacher))


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur() -> None:
    outputs = torch.eye(4)[[0, 0, 0, 1, 1, 0, 3]]  # predicted classes
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 0])
    found = measure(lambda images: images, [(outputs[:3], labels[:3]), (outputs[3:], labels[3:])])
    # Class 0: 3 of 5, class 1: 1 of 2; classes 2 and 3 do not occur.
    assert found == pytest.approx({"top1": 4 / 7, "balanced_accuracy": (3 / 5 + 1 / 2) / 2})
    assert measure(lambda images: images, []) == {"top1": 0.0, "balanced_accuracy": 0.0}
    assert [metric.name for metric in ClassificationTask().metrics] == list(found)
    assert ClassificationTask().metric.name == "top1"


def test_an_evaluator_judges_by_its_task() -> None:
    supernet, config = build_supernet(SPACE, 0), SPACE.smallest
    evaluator = SubnetEvaluator(supernet, make_data(), calibration_images=60, task=Regression())
    network = evaluator.network(config)
    batches = list(evaluator.batches(config.resolution))
    with torch.no_grad():
        errors = torch.cat([(network(images)[:, 0] - labels).abs() for images, labels in batches])
    assert evaluator.score(config) == pytest.approx(float(errors.mean()), rel=1e-5)
    assert set(evaluator.measure(config)) == {"distance", "largest_error"}


def test_a_trainer_trains_and_reports_what_its_task_says(tmp_path: Path) -> None:
    settings = TrainSettings(30, calibration_images=60, validation_images=30)
    trainer = Trainer(
        ToySupernet(),
        make_data(),
        Recipe(tuple(PHASES[:2]), settings),
        folder=tmp_path,
        device=torch.device("cpu"),
        task=Regression(),
    )
    before = trainer.validate()
    trainer.train()
    summary = trainer.summary("mine")
    assert summary.scores["largest"] < 0.8 * before["largest"]
    summary.write(tmp_path, tmp_path / "runs.csv")
    assert json.loads((tmp_path / "summary.json").read_text())["distance"] == summary.scores
    with (tmp_path / "runs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert "distance_largest" in row and "top1_largest" not in row
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (*_, last) = events.Scalars("distance/largest")
    assert last.value == pytest.approx(summary.scores["largest"])
