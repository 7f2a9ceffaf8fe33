"""`LossSettings`: the loss of a classification as data, torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.common.errors import UserError, unknown_name

SOFT_LOSS_NAMES = ("soft_cross_entropy", "kl_divergence", "adaptive_alpha_divergence", "squared_error")


@dataclass(frozen=True)
class LossSettings:
    """Hard cross-entropy with label smoothing, plus a weighted soft loss if there is a teacher.

    Attributes:
        label_smoothing: smoothing of the hard targets.
        distillation_ratio: weight of the soft loss; 0 for none.
        soft_loss: one of `SOFT_LOSS_NAMES`.
        temperature: divisor of both logits in the soft loss, which is multiplied by its square.
    """

    label_smoothing: float
    distillation_ratio: float
    soft_loss: str = "soft_cross_entropy"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.soft_loss not in SOFT_LOSS_NAMES:
            raise unknown_name("soft_loss", self.soft_loss, SOFT_LOSS_NAMES)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}; expected a share in [0, 1).")
        if not self.distillation_ratio >= 0:
            raise UserError(f"distillation_ratio is {self.distillation_ratio}; expected 0 or more.")
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}; expected a positive number.")
