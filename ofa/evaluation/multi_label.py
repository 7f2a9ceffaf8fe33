"""`MultiLabelTask`: any number of labels for each image, judged by how well each label ranks the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.common.metric import MACRO_F1, MEAN_AVERAGE_PRECISION, Metric
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import SOFT_LOSSES
from ofa.evaluation.task import Meter, Task

Values = npt.NDArray[np.float64]


class MultiLabelTask(Task):
    """Outputs are logits (n, labels), targets 0, 1 or unknown (below 0), int64 (n, labels).

    The probability of a label is the sigmoid of its logit. Unknown labels count neither in the loss nor in a
    metric; the soft loss counts all, because a teacher has an answer for each.
    """

    def __init__(self, settings: LossSettings, *, class_weights: Sequence[float] | None = None) -> None:
        """Take the settings of the losses.

        Args:
            settings: label smoothing, between 0 and 1 for each label, and the soft loss.
            class_weights: factor of the hard loss of each label where an image has it; None for 1.
        """
        self._settings = settings
        self._weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)

    @property
    @override
    def metrics(self) -> tuple[Metric, ...]:
        return MEAN_AVERAGE_PRECISION, MACRO_F1

    @override
    def meter(self) -> LabelMeter:
        return LabelMeter()

    @override
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of the known labels; 0 if there are none."""
        is_known, smoothing = targets >= 0, self._settings.label_smoothing
        shares = (1 - smoothing) * targets.clamp(min=0).to(outputs.dtype) + smoothing / 2
        if self._weights is not None and self._weights.device != outputs.device:
            self._weights = self._weights.to(outputs.device)
        losses = F.binary_cross_entropy_with_logits(
            outputs, shares, pos_weight=self._weights, reduction="none"
        )
        return torch.where(is_known, losses, 0.0).sum() / is_known.sum().clamp(min=1)

    @override
    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the weighted soft loss of the settings, of each label as two classes: present and absent."""
        temperature = self._settings.temperature
        pairs, teacher_pairs = (
            torch.stack([logits, torch.zeros_like(logits)], -1).flatten(0, -2) / temperature
            for logits in (outputs, teacher_outputs)
        )
        return weight * temperature**2 * SOFT_LOSSES[self._settings.soft_loss](pairs, teacher_pairs)

    @override
    def read(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label (n, labels)."""
        return outputs.float().sigmoid()


class LabelMeter(Meter):
    """Keeps the logits and targets of all images: ranks are known when all are there."""

    def __init__(self) -> None:
        """Begin with no images."""
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    @override
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self._outputs.append(outputs.float())
        self._targets.append(targets.to(torch.int8))

    @override
    def values(self) -> dict[str, float]:
        precisions, f1_scores, counts = self._by_label()
        occurs = counts > 0
        means = (float(part[occurs].mean()) if occurs.any() else 0.0 for part in (precisions, f1_scores))
        return dict(zip((MEAN_AVERAGE_PRECISION.name, MACRO_F1.name), means, strict=True))

    @override
    def details(self, names: Sequence[str]) -> list[str]:
        """Return a line for each label, the worst first: average precision, F1, and how often it occurs."""
        precisions, f1_scores, counts = self._by_label()
        if len(counts) != len(names):
            raise UserError(
                f"The network tells {len(counts)} labels; there are {len(names)} names of labels."
            )
        order = np.argsort(np.where(counts > 0, precisions, 2.0), kind="stable").tolist()
        return [
            f"{names[label]}: average precision {100 * precisions[label]:.1f} %, F1 "
            f"{100 * f1_scores[label]:.1f} %, on {int(counts[label])} images"
            if counts[label]
            else f"{names[label]}: on no image"
            for label in order
        ]

    def _by_label(self) -> tuple[Values, Values, npt.NDArray[np.int64]]:
        """Return the average precision and F1 of each label, and the number of images that have it."""
        if not self._outputs:
            return np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
        from sklearn.metrics import average_precision_score, f1_score  # takes a second

        logits = torch.cat(self._outputs).double().cpu().numpy()
        targets = torch.cat(self._targets).cpu().numpy()
        known = targets >= 0
        has = targets == 1
        columns = range(logits.shape[1])
        parts = [(has[known[:, c], c], logits[known[:, c], c]) for c in columns]
        precisions = np.array([average_precision_score(*part) if part[0].any() else 0.0 for part in parts])
        f1_scores = [
            f1_score(truth, scores > 0, zero_division=0.0) if len(truth) else 0.0 for truth, scores in parts
        ]
        return precisions, np.array(f1_scores), has.sum(0)
