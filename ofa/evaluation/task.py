"""`Task`: the losses and metrics of a kind of network output."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.common.metric import TOP1, Metric
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import SOFT_LOSSES


class Meter(ABC):
    """Collects the outputs of a split's batches and returns the metrics over all of them."""

    @abstractmethod
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the outputs and targets of a batch."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Return the value of each metric by name."""


class Task(ABC):
    """Losses and metrics for one kind of output.

    Targets are the image set's values beside the images; outputs are a network's results, in float32.
    """

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics; the first is the primary metric."""

    @abstractmethod
    def meter(self) -> Meter:
        """Return a new meter of all metrics."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""

    @abstractmethod
    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return `weight` times the mean distance of a batch from a teacher's outputs, a scalar.

        No gradient flows into the teacher's outputs.
        """

    @property
    def metric(self) -> Metric:
        """The primary metric, by which networks are compared."""
        return self.metrics[0]


class ClassificationTask(Task):
    """One class per image: logits (n, classes), labels (n,)."""

    def __init__(self, settings: LossSettings | None = None) -> None:
        """Take the settings of the losses; None for plain cross-entropy."""
        self._settings = settings or LossSettings(label_smoothing=0.0, distillation_ratio=1.0)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Top-1: the share of images (0..1) whose largest logit is the label."""
        return (TOP1,)

    @override
    def meter(self) -> Meter:
        return _Top1Meter()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy with label smoothing."""
        return F.cross_entropy(outputs, targets, label_smoothing=self._settings.label_smoothing)

    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the weighted soft loss of the settings, times the square of the logits' temperature."""
        temperature = self._settings.temperature
        distance = SOFT_LOSSES[self._settings.soft_loss](outputs / temperature, teacher_outputs / temperature)
        return weight * temperature**2 * distance


class _Top1Meter(Meter):
    def __init__(self) -> None:
        self._correct, self._count = 0, 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self._correct += int((outputs.argmax(1) == targets).sum())
        self._count += len(targets)

    def values(self) -> dict[str, float]:
        return {TOP1.name: self._correct / max(self._count, 1)}
