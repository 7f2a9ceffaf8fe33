"""Confusions: counted by hand, the same over any batches, and with top-5 of more than ten classes alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ofa.common.errors import UserError
from ofa.common.metric import TOP5
from ofa.evaluation.confusion import Confusion, confusion_of
from ofa.evaluation.evaluate import measure, measure_confusion
from ofa.evaluation.task import ClassificationTask, ClassMeter

NAMES = ("coat", "pullover", "shirt", "boot")
LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 2]
ANSWERS = [0, 1, 1, 2, 1, 0, 1, 1, 2]


def by_hand() -> Confusion:
    return confusion_of(NAMES, LABELS, ANSWERS)


def test_counts_have_a_row_per_class_and_a_column_per_answer() -> None:
    expected = [[1, 2, 1, 0], [1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]
    assert by_hand().counts.tolist() == expected
    logits = torch.eye(4)[ANSWERS]
    batches = [(logits[:2], torch.tensor(LABELS[:2])), (logits[2:], torch.tensor(LABELS[2:]))]
    measured = measure_confusion(lambda images: images, batches, NAMES)
    assert measured.counts.tolist() == expected and measured.counts.dtype == np.int64
    assert measured.metrics == measure(lambda images: images, batches)
    assert measured.metrics == pytest.approx(
        {"top1": 3 / 9, "balanced_accuracy": (1 / 4 + 1 / 2 + 1 / 3) / 3}
    )


def test_the_worst_classes_and_most_frequent_mistakes_come_first() -> None:
    confusion = by_hand()
    assert [str(accuracy) for accuracy in confusion.worst_classes(2)] == [
        "coat: 1 of 4 right",
        "shirt: 1 of 3 right",
    ]
    assert [str(mistake) for mistake in confusion.frequent_mistakes(3)] == [
        "coat taken for pullover: 2 of 4",
        "shirt taken for pullover: 2 of 3",
        "coat taken for shirt: 1 of 4",
    ]
    assert len(confusion.frequent_mistakes(100)) == 4
    perfect = confusion_of(NAMES, [0, 1], [0, 1])
    assert (perfect.worst_classes(9), perfect.frequent_mistakes(9)) == ([], [])


def test_the_values_for_json_keep_classes_of_one_name_apart() -> None:
    twice = confusion_of(("crane", "crane", "none"), [0, 0, 1], [0, 1, 1])
    values = json.loads(json.dumps(twice.to_dict()))
    assert values["class_accuracy"] == [0.5, 1.0, None]
    assert values["class_names"] == ["crane", "crane", "none"]
    assert (values["num_images"], values["counts"][0]) == (3, [1, 1, 0])


@pytest.mark.parametrize(("num_classes", "expected"), [(10, None), (11, 0.5)])
def test_top5_is_a_share_of_more_than_ten_classes(num_classes: int, expected: float | None) -> None:
    logits = torch.arange(float(num_classes)).repeat(4, 1)  # the last five classes are the most probable
    labels = torch.tensor([num_classes - 1, num_classes - 5, num_classes - 6, 0])
    confusion = measure_confusion(
        lambda images: images, [(logits[:3], labels[:3]), (logits[3:], labels[3:])], range_names(num_classes)
    )
    assert confusion.metrics.get(TOP5.name) == expected
    assert confusion.metrics["top1"] == 0.25


def range_names(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def test_top5_is_no_metric_of_the_task_so_records_of_training_stay_as_they_are() -> None:
    meter = ClassificationTask().meter()
    meter.add(torch.randn(3, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 3]))
    assert list(meter.values()) == ["top1", "balanced_accuracy"]
    assert [metric.name for metric in ClassificationTask().metrics] == list(meter.values())


def test_no_images_are_no_mistake() -> None:
    assert ClassMeter().values() == {"top1": 0.0, "balanced_accuracy": 0.0}
    confusion = measure_confusion(lambda images: images, [], NAMES)
    assert confusion.total == 0 and confusion.counts.shape == (4, 4)


def test_another_number_of_names_is_refused() -> None:
    with pytest.raises(UserError, match="tells 3 classes; there are 4 names of classes"):
        measure_confusion(lambda images: images, [(torch.eye(3), torch.arange(3))], NAMES)
