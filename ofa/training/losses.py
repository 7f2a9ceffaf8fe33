"""The loss of a network in a training step: a task's losses, weighted, and a penalty of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ofa.evaluation.task import Task


class Penalty(Protocol):
    """A term of the loss that depends on the weights alone."""

    def __call__(self) -> Tensor:
        """Return the weighted penalty, a scalar."""

    def before_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, counted from 0, e.g. choose what is trained; called again after a resume."""


def loss_terms(
    task: Task, distillation_ratio: float, outputs: Tensor, targets: Tensor, teacher_outputs: Tensor | None
) -> dict[str, Tensor]:
    """Return the weighted terms of a loss by name; their sum is the loss.

    The task's loss, plus its weighted soft loss if there is a teacher (Hinton et al. 2015; Cai et al.
    2020, sec. 3.3).

    Args:
        task: task that defines the losses.
        distillation_ratio: weight of the soft loss; 0 for none.
        outputs: outputs of the network, e.g. logits (n, classes).
        targets: targets of the batch, e.g. labels (n,).
        teacher_outputs: outputs of the teacher, same shape as `outputs`; None for no soft loss.
    """
    terms = {"hard": task.loss(outputs, targets)}
    if teacher_outputs is not None and distillation_ratio > 0:
        terms["soft"] = task.soft_loss(outputs, teacher_outputs, distillation_ratio)
    return terms


def sum_terms(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the terms of a loss."""
    return torch.stack(list(terms.values())).sum()
