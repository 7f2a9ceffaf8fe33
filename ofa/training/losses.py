"""Losses of a training step: pure functions of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean cross-entropy between the teacher's and the student's class probabilities.

    Args:
        logits: student's, shape (n, classes).
        teacher_logits: teacher's, the same shape; no gradient flows into them.
    """
    targets = teacher_logits.detach().softmax(1)
    return torch.mean(torch.sum(-targets * F.log_softmax(logits, 1), 1))


def step_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    label_smoothing: float,
    distillation_ratio: float,
) -> Tensor:
    """Return hard cross-entropy with label smoothing, plus the weighted soft one where there is a teacher.

    (Cai et al. 2020, sec. 3.3; Hinton et al. 2015.)
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if teacher_logits is not None:
        loss = loss + distillation_ratio * soft_cross_entropy(logits, teacher_logits)
    return loss
