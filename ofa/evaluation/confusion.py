"""`Confusion`: how often each class is taken for each other one, and what follows from that; torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from ofa.common.metric import BALANCED_ACCURACY, MEAN_IOU, PIXEL_ACCURACY, TOP1, TOP5

MAX_CLASSES_WITHOUT_TOP5 = 10
"""Of so many classes or fewer, five answers say little: there is no top-5."""


@dataclass(frozen=True)
class Mistake:
    """Images of one class that are taken for another.

    Attributes:
        label: true class.
        answer: class that it is taken for.
        count: number of images with this mistake.
        total: number of images of the true class.
    """

    label: str
    answer: str
    count: int
    total: int

    def __str__(self) -> str:
        """Return e.g. "coat taken for pullover: 12 of 50"."""
        return f"{self.label} taken for {self.answer}: {self.count} of {self.total}"


@dataclass(frozen=True)
class ClassAccuracy:
    """Share of right answers among the images of one class.

    Attributes:
        name: the class.
        num_right: images of it that are classified right.
        total: all images of it, at least one.
    """

    name: str
    num_right: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0..1."""
        return self.num_right / self.total

    def __str__(self) -> str:
        """Return e.g. "shirt: 49 of 80 right"."""
        return f"{self.name}: {self.num_right} of {self.total} right"


@dataclass(frozen=True)
class ClassOverlap(ClassAccuracy):
    """Intersection of the pixels that have a class as label and as answer, and their union as `total`."""

    @override
    def __str__(self) -> str:
        """Return e.g. "square: IoU 61.3 %"."""
        return f"{self.name}: IoU {100 * self.value:.1f} %"


@dataclass(frozen=True, eq=False)
class Confusion:
    """Answers of a classifier on labelled images.

    Attributes:
        class_names: names of the classes.
        counts: number of images by true class (row) and answer (column), int64 (classes, classes).
        num_top5: images whose class is among the five most probable ones; None where that was not counted.
    """

    class_names: tuple[str, ...]
    counts: NDArray[np.int64]
    num_top5: int | None = None
    unit: ClassVar[str] = "image"
    """What is counted."""

    def __post_init__(self) -> None:
        """Check that there is a row and a column per class."""
        num_classes = len(self.class_names)
        assert self.counts.shape == (num_classes, num_classes), (self.counts.shape, num_classes)

    @property
    def total(self) -> int:
        """Number of answers: images, or pixels of a segmentation."""
        return int(self.counts.sum())

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Top-1, balanced accuracy and, if counted, top-5, each a share (0..1), by name; 0 without images."""
        totals, correct = self.counts.sum(axis=1), self.counts.diagonal()
        occurs, num_images = totals > 0, max(self.total, 1)
        balanced = float((correct[occurs] / totals[occurs]).mean()) if occurs.any() else 0.0
        values = {TOP1.name: int(correct.sum()) / num_images, BALANCED_ACCURACY.name: balanced}
        return values if self.num_top5 is None else {**values, TOP5.name: self.num_top5 / num_images}

    @cached_property
    def class_accuracies(self) -> list[ClassAccuracy]:
        """Accuracy of every class that has images, in the order of the classes."""
        named = zip(self.class_names, self._rows, strict=True)
        return [ClassAccuracy(name, right, total) for name, (right, total) in named if total]

    @property
    def _rows(self) -> list[tuple[int, int]]:
        """Images of each class that are classified right, and all of them."""
        return list(zip(self.counts.diagonal().tolist(), self.counts.sum(axis=1).tolist(), strict=True))

    def worst_classes(self, limit: int) -> list[ClassAccuracy]:
        """Return at most `limit` classes that are not always right, the lowest accuracy first."""
        imperfect = [accuracy for accuracy in self.class_accuracies if accuracy.value < 1]
        return sorted(imperfect, key=lambda accuracy: accuracy.value)[:limit]

    def frequent_mistakes(self, limit: int) -> list[Mistake]:
        """Return at most `limit` pairs of classes with mistakes, the most images first."""
        counts = self.counts.copy()
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:limit]
        labels, answers = np.unravel_index(order, counts.shape)
        totals = self.counts.sum(axis=1)
        return [
            Mistake(self.class_names[label], self.class_names[answer], int(count), int(totals[label]))
            for label, answer in zip(labels.tolist(), answers.tolist(), strict=True)
            if (count := counts[label, answer])
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; a class without images has the accuracy null."""
        return {
            f"num_{self.unit}s": self.total,
            "metrics": dict(self.metrics),
            "class_names": list(self.class_names),
            "class_accuracy": [right / total if total else None for right, total in self._rows],
            "rows": "true class",
            "columns": "answer",
            "counts": self.counts.tolist(),
        }


class PixelConfusion(Confusion):
    """Answers of a segmentation on labelled pixels; a class is judged by its intersection over union.

    `counts` are numbers of pixels. What is right of a class are the pixels that have it as label and answer,
    all of it are those that have it as either.
    """

    unit: ClassVar[str] = "pixel"

    @cached_property
    @override
    def metrics(self) -> dict[str, float]:
        """Mean IoU of the classes that occur, and pixel accuracy, each a share (0..1); 0 without pixels."""
        shares = [accuracy.value for accuracy in self.class_accuracies]
        return {
            MEAN_IOU.name: sum(shares) / max(len(shares), 1),
            PIXEL_ACCURACY.name: int(self.counts.diagonal().sum()) / max(self.total, 1),
        }

    @cached_property
    @override
    def class_accuracies(self) -> list[ClassAccuracy]:
        named = zip(self.class_names, self._rows, strict=True)
        return [ClassOverlap(name, both, either) for name, (both, either) in named if either]

    @property
    @override
    def _rows(self) -> list[tuple[int, int]]:
        both = self.counts.diagonal()
        either = self.counts.sum(axis=0) + self.counts.sum(axis=1) - both
        return list(zip(both.tolist(), either.tolist(), strict=True))


def confusion_of(class_names: tuple[str, ...], labels: Iterable[int], answers: Iterable[int]) -> Confusion:
    """Return the confusion of answers, both given as positions of classes."""
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(counts, (np.fromiter(labels, np.int64), np.fromiter(answers, np.int64)), 1)
    return Confusion(class_names, counts)
