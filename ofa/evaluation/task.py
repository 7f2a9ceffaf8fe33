"""`Task`: the losses and metrics of a kind of network output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.common.metric import BALANCED_ACCURACY, TOP1, Metric
from ofa.data.target_scale import TargetScale
from ofa.evaluation.confusion import MAX_CLASSES_WITHOUT_TOP5, Confusion
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

    def confusion(self, class_names: Sequence[str] | None = None) -> Confusion | None:
        """Return how classes are taken for each other; None for a task without classes.

        Args:
            class_names: name of each class; None for their positions.

        Raises:
            UserError: if the network has another number of classes.
        """
        return None

    def details(self, names: Sequence[str]) -> list[str]:
        """Return lines about each label or number, for users; none for a task that has a `confusion`.

        Args:
            names: name of each output.

        Raises:
            UserError: if the network has another number of outputs.
        """
        return []


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

    def detailed_meter(self) -> Meter:
        """Return a new meter for reports, which may count more than `meter`."""
        return self.meter()

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""

    @abstractmethod
    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return `weight` times the mean distance of a batch from a teacher's outputs, a scalar.

        No gradient flows into the teacher's outputs.
        """

    def batch_score(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return the primary metric of one training batch, a scalar; None if a batch has none."""
        return None

    def read(self, outputs: Tensor) -> Tensor:
        """Return what outputs (n, ...) say to a user, e.g. probabilities; here the outputs themselves."""
        return outputs

    def in_units(self, scale: TargetScale | None) -> Task:
        """Return the task for a network whose outputs have a scale; itself where outputs have none."""
        return self

    @property
    def problems(self) -> dict[str, object]:
        """Settings of the losses that mean nothing for the task, by name, with the values to give instead."""
        return {}

    @property
    def metric(self) -> Metric:
        """The primary metric, by which networks are compared."""
        return self.metrics[0]

    @property
    def takes_class_shares(self) -> bool:
        """Whether targets may also be probabilities of the classes (n, classes), as of mixed images."""
        return False


class ClassificationTask(Task):
    """One class per image: logits (n, classes); labels (n,), or probabilities of the classes (n, classes)."""

    def __init__(
        self, settings: LossSettings | None = None, *, class_weights: Sequence[float] | None = None
    ) -> None:
        """Take the settings of the losses; None for plain cross-entropy.

        Args:
            settings: label smoothing, and the soft loss.
            class_weights: factor of the hard loss of each class; None for 1. See `ofa.evaluation.classes`.
        """
        self._settings = settings or LossSettings(label_smoothing=0.0, distillation_ratio=1.0)
        self._weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Top-1, the share of images (0..1) whose largest logit is the label, and balanced accuracy."""
        return TOP1, BALANCED_ACCURACY

    @property
    @override
    def takes_class_shares(self) -> bool:
        return True

    @override
    def meter(self) -> Meter:
        return ClassMeter()

    @override
    def detailed_meter(self) -> Meter:
        return ClassMeter(counts_top5=True)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy with label smoothing; the weights of the classes do not cancel out."""
        smoothing = self._settings.label_smoothing
        if self._weights is None:
            return F.cross_entropy(outputs, targets, label_smoothing=smoothing)
        if self._weights.device != outputs.device:
            self._weights = self._weights.to(outputs.device)
        weights = self._weights.to(outputs.dtype)
        total = F.cross_entropy(outputs, targets, weights, label_smoothing=smoothing, reduction="sum")
        return total / len(targets)

    @override
    def read(self, outputs: Tensor) -> Tensor:
        """Return the probability of each class (n, classes)."""
        return outputs.float().softmax(1)

    @override
    def batch_score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of images whose largest logit is the label, or the label of the largest share."""
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        return (outputs.argmax(1) == labels).float().mean()

    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the weighted soft loss of the settings, times the square of the logits' temperature."""
        temperature = self._settings.temperature
        distance = SOFT_LOSSES[self._settings.soft_loss](outputs / temperature, teacher_outputs / temperature)
        return weight * temperature**2 * distance


class ClassMeter(Meter):
    """Counts images by label and answer; nothing waits for the device before the counts are asked for."""

    def __init__(self, *, counts_top5: bool = False) -> None:
        """Begin with no images.

        Args:
            counts_top5: whether to count also, where there are more than ten classes, the images whose label
                is among the five largest logits.
        """
        self._counts_top5 = counts_top5
        self._counts: Tensor | None = None
        self._top5: Tensor | None = None

    @override
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        num_classes, answers = outputs.shape[1], outputs.argmax(1)
        if self._counts is None:
            self._counts = torch.zeros(num_classes**2, dtype=torch.int64, device=outputs.device)
        self._counts.index_add_(0, targets * num_classes + answers, torch.ones_like(answers))
        if self._counts_top5 and num_classes > MAX_CLASSES_WITHOUT_TOP5:
            hits = (outputs.topk(5, dim=1).indices == targets[:, None]).any(1).sum()
            self._top5 = hits if self._top5 is None else self._top5 + hits

    @override
    def values(self) -> dict[str, float]:
        return self.confusion().metrics

    @override
    def confusion(self, class_names: Sequence[str] | None = None) -> Confusion:
        counts = torch.zeros(0, dtype=torch.int64) if self._counts is None else self._counts.cpu()
        num_classes = math.isqrt(len(counts))
        if class_names is None:
            class_names = [str(position) for position in range(num_classes)]
        if self._counts is None:
            counts = counts.new_zeros(len(class_names) ** 2)
        side = len(class_names)
        if len(counts) != side**2:
            raise UserError(f"The network tells {num_classes} classes; there are {side} names of classes.")
        top5 = None if self._top5 is None else int(self._top5)
        return Confusion(tuple(class_names), counts.view(side, side).numpy(), top5)
