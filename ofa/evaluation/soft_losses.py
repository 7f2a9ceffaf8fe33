"""Soft losses of a classification: pure functions of a student's and a teacher's logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.evaluation.settings import SOFT_LOSS_NAMES

SoftLoss = Callable[[Tensor, Tensor], Tensor]


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean cross-entropy between the teacher's and the student's class probabilities.

    Args:
        logits: student's logits, shape (n, classes).
        teacher_logits: teacher's logits, the same shape; no gradient flows into them.
    """
    targets = teacher_logits.detach().softmax(1)
    return torch.mean(torch.sum(-targets * F.log_softmax(logits, 1), 1))


def kl_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the student from the teacher, KL(teacher || student).

    Its gradient is that of `soft_cross_entropy`; its value is 0 where both agree. The arguments are the same.
    """
    targets = teacher_logits.detach().log_softmax(1)
    return F.kl_div(F.log_softmax(logits, 1), targets, reduction="batchmean", log_target=True)


def squared_error(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the mean squared difference of logits or numbers (Ba and Caruana 2014).

    The arguments are those of `soft_cross_entropy`.
    """
    return F.mse_loss(logits, teacher_logits.detach())


def adaptive_alpha_divergence(
    logits: Tensor,
    teacher_logits: Tensor,
    alphas: tuple[float, float] = (-1.0, 1.0),
    max_importance: float = 5.0,
) -> Tensor:
    """Return the mean over images of the larger of two alpha-divergences (AlphaNet; Wang et al. 2021).

    With p of the teacher and q of the student, D_alpha = sum q ((p/q)^alpha - 1) / (alpha (alpha - 1)), and
    KL(p || q) for alpha = 1. A negative alpha penalises classes that the student overestimates, a positive
    alpha classes that it underestimates. The importance (p/q)^alpha is clipped in value and gradient, except
    for alpha = 1, where q cancels and the gradient is bounded.

    Args:
        logits: student's logits, shape (n, classes).
        teacher_logits: teacher's logits, the same shape; no gradient flows into them.
        alphas: the two alphas, both not 0.
        max_importance: upper bound of the importances where alpha is not 1.
    """
    log_q, log_p = F.log_softmax(logits, 1), F.log_softmax(teacher_logits.detach(), 1)
    first_terms, second_terms = (_alpha_divergence(log_q, log_p, alpha, max_importance) for alpha in alphas)
    first_is_larger = first_terms[0] >= second_terms[0]
    value, surrogate = (
        torch.where(first_is_larger, a, b) for a, b in zip(first_terms, second_terms, strict=True)
    )
    # Value of the divergence, gradient of the clipped divergence.
    return torch.mean(surrogate + (value - surrogate).detach())


def _alpha_divergence(
    log_q: Tensor, log_p: Tensor, alpha: float, max_importance: float
) -> tuple[Tensor, Tensor]:
    """Return the divergence per image, and a term with its gradient: -1/alpha sum q (p/q)^alpha d log q."""
    log_ratio = log_p - log_q.detach()
    weight = log_q.detach().exp()
    if alpha == 1.0:
        p = log_p.exp()
        return torch.sum(p * log_ratio, 1), -torch.sum(p * log_q, 1)
    importance = torch.exp((alpha * log_ratio).clamp(max=math.log(max_importance)))
    value = torch.sum(weight * (importance - 1), 1) / (alpha * (alpha - 1))
    return value, -torch.sum(weight * importance * log_q, 1) / alpha


SOFT_LOSSES: Mapping[str, SoftLoss] = MappingProxyType(
    {
        "soft_cross_entropy": soft_cross_entropy,
        "kl_divergence": kl_divergence,
        "adaptive_alpha_divergence": adaptive_alpha_divergence,
        "squared_error": squared_error,
    }
)


assert set(SOFT_LOSSES) == set(SOFT_LOSS_NAMES)
