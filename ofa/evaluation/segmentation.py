"""`SegmentationTask`: a class for each pixel, judged by the overlap of regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.common.metric import MEAN_IOU, PIXEL_ACCURACY, Metric
from ofa.data.masks import IGNORED
from ofa.evaluation.confusion import Confusion, PixelConfusion
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import SOFT_LOSSES
from ofa.evaluation.task import Meter, Task


class SegmentationTask(Task):
    """Outputs are logits (n, classes, h, w) of any size, targets masks (n, height, width), int64.

    Logits are enlarged to the size of the masks. Pixels with the label `IGNORED` count nowhere.
    """

    def __init__(self, settings: LossSettings, *, class_weights: Sequence[float] | None = None) -> None:
        """Take the settings of the losses, and a factor of the loss for each class; None for 1."""
        self._settings = settings
        self._weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)

    @property
    @override
    def metrics(self) -> tuple[Metric, ...]:
        return MEAN_IOU, PIXEL_ACCURACY

    @override
    def meter(self) -> PixelMeter:
        return PixelMeter()

    @override
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the labelled pixels; 0 if there are none."""
        weights = None if self._weights is None else self._weights.to(outputs)
        total = F.cross_entropy(
            enlarged(outputs, targets),
            targets,
            weights,
            ignore_index=IGNORED,
            label_smoothing=self._settings.label_smoothing,
            reduction="sum",
        )
        return total / (targets != IGNORED).sum().clamp(min=1)

    @override
    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the weighted soft loss of the settings, the mean of all pixels of the outputs."""
        temperature = self._settings.temperature
        pixels, teacher_pixels = (
            logits.movedim(1, -1).flatten(0, -2) / temperature for logits in (outputs, teacher_outputs)
        )
        distance = SOFT_LOSSES[self._settings.soft_loss](pixels, teacher_pixels)
        return weight * temperature**2 * distance

    @override
    def read(self, outputs: Tensor) -> Tensor:
        """Return the class of each pixel of the outputs (n, h, w)."""
        return outputs.argmax(1)

    @override
    @torch.no_grad()
    def batch_score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean IoU of a batch."""
        counts = _counts(outputs, targets).double()
        both = counts.diagonal()
        either = counts.sum(0) + counts.sum(1) - both
        return (both / either.clamp(min=1)).sum() / (either > 0).sum().clamp(min=1)


class PixelMeter(Meter):
    """Counts labelled pixels by label and answer."""

    def __init__(self) -> None:
        """Begin with no images."""
        self._counts: Tensor | None = None

    @override
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        counts = _counts(outputs, targets)
        self._counts = counts if self._counts is None else self._counts + counts

    @override
    def values(self) -> dict[str, float]:
        return self.confusion().metrics

    @override
    def confusion(self, class_names: Sequence[str] | None = None) -> Confusion:
        counts = torch.zeros(0, 0, dtype=torch.int64) if self._counts is None else self._counts.cpu()
        names = tuple(map(str, range(len(counts)))) if class_names is None else tuple(class_names)
        if self._counts is None:
            counts = counts.new_zeros(len(names), len(names))
        return PixelConfusion(names, counts.numpy())


def enlarged(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return logits (n, classes, h, w) at the size of masks (n, height, width), bilinear."""
    if outputs.shape[-2:] == targets.shape[-2:]:
        return outputs
    return F.interpolate(outputs, size=targets.shape[-2:], mode="bilinear", align_corners=False)


def _counts(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the number of pixels by label (row) and answer (column)."""
    num_classes = outputs.shape[1]
    labels, answers = targets.flatten(), enlarged(outputs, targets).argmax(1).flatten()
    # Ignored pixels are counted beyond the matrix: selecting the others would wait for a CUDA device.
    cells = torch.where(labels == IGNORED, num_classes**2, labels * num_classes + answers)
    counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=outputs.device)
    counts.index_add_(0, cells, torch.ones_like(cells))
    return counts[:-1].view(num_classes, num_classes)
