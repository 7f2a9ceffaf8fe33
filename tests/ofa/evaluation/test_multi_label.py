"""Any number of labels for an image: losses by hand, metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score

from ofa.common.errors import UserError
from ofa.common.metric import MACRO_F1, MEAN_AVERAGE_PRECISION
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.evaluation.classes import class_weights, positive_weights
from ofa.evaluation.multi_label import LabelMeter, MultiLabelTask
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import SOFT_LOSSES
from ofa.evaluation.tasks import task_of

PLAIN = LossSettings(label_smoothing=0.0, distillation_ratio=1.0)


def drawn(seed: int, num_images: int = 60, num_labels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits with ties and targets with unknown ones."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(num_images, num_labels)).round(1)).float()
    return logits, torch.from_numpy(rng.choice([-1, 0, 1], (num_images, num_labels), p=[0.1, 0.6, 0.3]))


def values(logits: torch.Tensor, targets: torch.Tensor, batch: int = 60) -> dict[str, float]:
    meter = MultiLabelTask(PLAIN).meter()
    for start in range(0, len(logits), batch):
        meter.add(logits[start : start + batch], targets[start : start + batch])
    return meter.values()


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    logits, targets = drawn(seed)
    targets[:, 3] = targets[:, 3].clamp(max=0)  # A label of no image.
    precisions, f1_scores = [], []
    for column in range(3):
        known = targets[:, column] >= 0
        truth, scores = targets[known, column].numpy(), logits[known, column].numpy()
        precisions.append(average_precision_score(truth, scores))
        f1_scores.append(f1_score(truth, scores > 0))
    found = values(logits, targets, batch=7)
    assert found[MEAN_AVERAGE_PRECISION.name] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert found[MACRO_F1.name] == pytest.approx(np.mean(f1_scores), abs=1e-12)
    assert found == values(logits, targets)


def test_all_known_labels_give_the_macro_average() -> None:
    logits, targets = drawn(9)
    targets = targets.clamp(min=0)
    expected = average_precision_score(targets.numpy(), logits.sigmoid().numpy(), average="macro")
    assert values(logits, targets)[MEAN_AVERAGE_PRECISION.name] == pytest.approx(expected, abs=1e-7)


def test_no_image_and_no_label_give_zero() -> None:
    assert LabelMeter().values() == {"mean_average_precision": 0.0, "macro_f1": 0.0}
    assert values(torch.zeros(3, 2), torch.zeros(3, 2).long())["mean_average_precision"] == 0.0


def test_lines_name_each_label_the_worst_first() -> None:
    meter = LabelMeter()
    meter.add(torch.tensor([[2.0, 3.0, 0.0], [1.0, -3.0, 0.0]]), torch.tensor([[0, 1, 0], [1, 0, 0]]))
    assert meter.details(["cat", "dog", "cow"]) == [
        "cat: average precision 50.0 %, F1 66.7 %, on 1 images",
        "dog: average precision 100.0 %, F1 100.0 %, on 1 images",
        "cow: on no image",
    ]
    assert meter.confusion() is None
    with pytest.raises(UserError, match="tells 3 labels; there are 1 names"):
        meter.details(["cat"])


def test_the_loss_is_the_mean_over_known_labels() -> None:
    logits, targets = drawn(1)
    known = targets >= 0
    expected = F.binary_cross_entropy(logits[known].sigmoid(), targets[known].float())
    assert torch.allclose(MultiLabelTask(PLAIN).loss(logits, targets), expected, atol=1e-6)
    assert MultiLabelTask(PLAIN).loss(logits, torch.full_like(targets, -1)) == 0
    logits.requires_grad_()
    MultiLabelTask(PLAIN).loss(logits, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and torch.equal(logits.grad != 0, known)


def test_smoothing_and_weights_are_those_of_their_formulas() -> None:
    logits, targets = drawn(2)
    targets = targets.clamp(min=0)
    smooth = MultiLabelTask(LossSettings(label_smoothing=0.2, distillation_ratio=1.0))
    expected = F.binary_cross_entropy(logits.sigmoid(), torch.where(targets == 1, 0.9, 0.1))
    assert torch.allclose(smooth.loss(logits, targets), expected, atol=1e-6)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighted = MultiLabelTask(PLAIN, class_weights=weights.tolist())
    parts = torch.where(targets == 1, -weights * F.logsigmoid(logits), -F.logsigmoid(-logits))
    assert torch.allclose(weighted.loss(logits, targets), parts.mean(), atol=1e-6)


def test_the_soft_loss_is_the_divergence_of_two_classes() -> None:
    (logits, _), (teacher, _) = drawn(3), drawn(4)
    settings = LossSettings(0.0, 1.0, soft_loss="kl_divergence", temperature=2.0)
    p, q = (teacher / 2).sigmoid(), (logits / 2).sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    task = MultiLabelTask(settings)
    assert torch.allclose(task.soft_loss(logits, teacher, 0.5), 0.5 * 4 * kl.mean(), atol=1e-5)
    assert torch.allclose(task.soft_loss(teacher, teacher), torch.zeros(()), atol=1e-6)
    assert torch.equal(task.read(logits), logits.sigmoid())


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_no_soft_loss_is_below_that_of_the_teacher(name: str) -> None:
    (logits, _), (teacher, _) = drawn(5), drawn(6)
    task = MultiLabelTask(LossSettings(0.0, 1.0, soft_loss=name))
    assert task.soft_loss(teacher, teacher) < task.soft_loss(logits, teacher)


def test_weights_of_labels_make_both_sides_equal() -> None:
    assert positive_weights((10, 50, 0, 1), (90, 50, 100, 1000)) == (9.0, 1.0, 1.0, 100.0)
    weighted = load_data(DataSettings("shapes_labels", validation_size=400, balance="loss"))
    weights = class_weights(weighted)
    counts, without = weighted.class_counts("train"), weighted.negative_counts("train")
    assert without is not None and weights == tuple(n / c for c, n in zip(counts, without, strict=True))
    logits, targets = torch.zeros(2, 3), torch.tensor([[1, 1, 1], [1, 1, 1]])
    plain = load_data(DataSettings("shapes_labels", validation_size=400))
    assert class_weights(plain) is None
    ratio = task_of(weighted).loss(logits, targets) / task_of(plain).loss(logits, targets)
    assert float(ratio) == pytest.approx(sum(weights) / 3, rel=1e-5)
