"""`RegressionTask`: numbers for each image, judged by the variance that is explained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.common.metric import MEAN_ABSOLUTE_ERROR, R2, Metric, number_text
from ofa.data.target_scale import TargetScale
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.task import Meter, Task

SOFT_LOSS = "squared_error"
"""The soft loss of numbers; the others compare probabilities."""


class RegressionTask(Task):
    """Outputs are standardised numbers (n, columns), targets numbers in the user's units (n, columns).

    The scale of `in_units` lies between both. Targets that are NaN are unknown and count nowhere; the soft
    loss counts all columns.
    """

    def __init__(
        self,
        settings: LossSettings,
        *,
        class_weights: Sequence[float] | None = None,
        scale: TargetScale | None = None,
    ) -> None:
        """Take the settings of the losses, and the scale of the outputs; None where it is not known yet.

        Raises:
            UserError: if there are weights: numbers are of no class.
        """
        if class_weights is not None:
            raise UserError("Numbers are of no class; expected no weights of classes (data.balance=none).")
        self._settings, self._scale = settings, scale
        self._moments: dict[torch.device, Tensor] = {}

    @override
    def in_units(self, scale: TargetScale | None) -> RegressionTask:
        return RegressionTask(self._settings, scale=scale)

    @property
    def scale(self) -> TargetScale:
        """Scale of the outputs.

        Raises:
            UserError: if the task has none.
        """
        if self._scale is None:
            raise UserError(
                "These images with numbers give no scale of them; set target_scale in their DataInfo."
            )
        return self._scale

    @property
    @override
    def metrics(self) -> tuple[Metric, ...]:
        return R2, MEAN_ABSOLUTE_ERROR

    @property
    @override
    def problems(self) -> dict[str, object]:
        settings = self._settings
        found = {"label_smoothing": settings.label_smoothing, "temperature": settings.temperature}
        expected: dict[str, object] = {"label_smoothing": 0.0, "temperature": 1.0}
        problems = {name: expected[name] for name, value in found.items() if value != expected[name]}
        return problems if settings.soft_loss == SOFT_LOSS else {**problems, "soft_loss": SOFT_LOSS}

    @override
    def meter(self) -> NumberMeter:
        return NumberMeter(self, self.scale)

    @override
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean smooth L1 distance of the known numbers, in standard deviations; 0 without any."""
        differences, is_known = self.differences(outputs, targets)
        losses = F.smooth_l1_loss(differences, torch.zeros_like(differences), reduction="sum")
        return losses / is_known.sum().clamp(min=1)

    @override
    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the weighted mean squared distance from the teacher's numbers, in standard deviations."""
        return weight * F.mse_loss(outputs, teacher_outputs.detach())

    @override
    @torch.no_grad()
    def batch_score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return R² of a batch; columns whose known numbers are equal count as 0."""
        differences, is_known = self.differences(outputs, targets)
        numbers = torch.where(is_known, self.standardised(targets), 0.0)
        counts = is_known.sum(0).clamp(min=1)
        means = numbers.sum(0) / counts
        total = torch.where(is_known, (numbers - means) ** 2, 0.0).sum(0)
        shares = 1 - (differences.double() ** 2).sum(0) / total.clamp(min=1e-12)
        return torch.where(total > 1e-12, shares, 0.0).mean()

    @override
    def read(self, outputs: Tensor) -> Tensor:
        """Return numbers (n, columns) in the user's units, float64."""
        mean, std = self._moments_on(outputs.device)
        numbers: Tensor = outputs.double() * std + mean
        return numbers

    def standardised(self, targets: Tensor) -> Tensor:
        """Return numbers (n, columns) in standard deviations from the mean, float64."""
        mean, std = self._moments_on(targets.device)
        numbers: Tensor = (targets.double() - mean) / std
        return numbers

    def differences(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the differences in standard deviations, 0 where a number is unknown, and which are known."""
        is_known = ~targets.isnan()
        # The unknown are replaced before they meet the outputs: NaN would reach the gradient.
        numbers = torch.where(is_known, self.standardised(targets), 0.0).to(outputs.dtype)
        return torch.where(is_known, outputs - numbers, 0.0), is_known

    def _moments_on(self, device: torch.device) -> Tensor:
        """Return mean and standard deviation (2, columns); created once, as that waits for a CUDA device."""
        if device not in self._moments:
            values = [self.scale.mean, self.scale.std]
            self._moments[device] = torch.tensor(values, dtype=torch.float64, device=device)
        return self._moments[device]


class NumberMeter(Meter):
    """Moments of the known numbers of each column and of the errors, in standard deviations of the scale."""

    def __init__(self, task: RegressionTask, scale: TargetScale) -> None:
        """Begin with no images.

        Args:
            task: the task, which has the scale.
            scale: the scale.
        """
        self._task, self._scale = task, scale
        self._moments: Tensor | None = None

    @override
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        differences, is_known = self._task.differences(outputs.double(), targets)
        numbers = torch.where(is_known, self._task.standardised(targets), 0.0)
        counts = is_known.sum(0).double()
        means = numbers.sum(0) / counts.clamp(min=1)
        variation = torch.where(is_known, (numbers - means) ** 2, 0.0).sum(0)
        errors = (differences**2).sum(0), differences.abs().sum(0)
        batch = torch.stack([counts, means, variation, *errors])
        self._moments = batch if self._moments is None else _merged(self._moments, batch)

    @override
    def values(self) -> dict[str, float]:
        shares, errors = self._by_column()
        return {
            R2.name: sum(shares) / max(len(shares), 1),
            MEAN_ABSOLUTE_ERROR.name: sum(errors) / max(len(errors), 1),
        }

    @override
    def details(self, names: Sequence[str]) -> list[str]:
        """Return a line for each column: R² and the mean absolute error."""
        shares, errors = self._by_column()
        if len(shares) != len(names):
            raise UserError(
                f"The network tells {len(shares)} numbers; there are {len(names)} names of columns."
            )
        return [
            f"{name}: {R2.title} {R2.show(share)}, {MEAN_ABSOLUTE_ERROR.title} {number_text(error)}"
            for name, share, error in zip(names, shares, errors, strict=True)
        ]

    def _by_column(self) -> tuple[list[float], list[float]]:
        """Return R² and the mean absolute error of each column; of one without a known number, 0 and 0.

        Where all known numbers of a column are equal, R² is 1 if all answers are right, else 0.
        """
        if self._moments is None:
            return [], []
        shares, errors = [], []
        for column, std in zip(self._moments.T.tolist(), self._scale.std, strict=True):
            count, mean, variation, squared_errors, absolute_errors = column
            # Equal numbers differ from their mean by its rounding.
            if variation > 1e-28 * count * mean**2:
                shares.append(1 - squared_errors / variation)
            else:
                shares.append(float(squared_errors == 0 and count > 0))
            errors.append(std * absolute_errors / count if count else 0.0)
        return shares, errors


def _merged(first: Tensor, second: Tensor) -> Tensor:
    """Return count, mean and variation of both parts together, and the sums of their errors (5, columns).

    Sums of squares would lose the variation of numbers that are far from 0 (Chan et al. 1983).
    """
    (counts, means, variation), (more, more_means, more_variation) = first[:3], second[:3]
    total = (counts + more).clamp(min=1)
    step = more_means - means
    merged = counts + more, means + step * more / total, step**2 * counts * more / total
    return torch.stack([*merged[:2], variation + more_variation + merged[2], *(first[3:] + second[3:])])
