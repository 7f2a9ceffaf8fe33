"""Progressive shrinking as data: phases, and the settings that all phases share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa.errors import UserError, unknown_name
from ofa.space import SearchSpace

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Phase:
    """One stage of training: which networks are drawn, for how long, at which learning rate.

    `kernel_sizes`, `depths`, `expand_ratios` and `widths` are how many of the largest choices of each kind
    are open (null: all), so that a recipe serves every space; `depths` is also that of the stem, `widths`
    that of stages and stem where they are elastic. `lr` is per 64 images. With `sandwich`, the largest and
    the smallest network of the phase are among the networks of every step (Yu and Huang 2019).
    """

    epochs: int
    lr: float
    name: str = ""
    kernel_sizes: int | None = None
    depths: int | None = None
    expand_ratios: int | None = None
    warmup_epochs: int = 0
    subnets_per_step: int = 1
    distill: bool = True
    sort_channels: bool = False
    widths: int | None = None
    sandwich: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.epochs < 1 or self.subnets_per_step < 1 or not self.lr > 0 or self.warmup_epochs < 0:
            raise UserError(
                "epochs and subnets_per_step of a phase must be at least 1, lr positive, "
                "warmup_epochs not negative."
            )
        if self.sandwich and self.subnets_per_step < 2:
            raise UserError(
                "A sandwich phase trains at least the largest and the smallest network of each step; "
                "its subnets_per_step must be at least 2."
            )
        for name in ("kernel_sizes", "depths", "expand_ratios", "widths"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UserError(f"{name} of a phase is {count}; expected at least 1, or null for all.")

    def space(self, whole: SearchSpace) -> SearchSpace:
        """Return `whole` restricted to the choices that this phase opens; every resolution is open."""
        return whole.largest_choices(
            kernel_size=self.kernel_sizes,
            depth=self.depths,
            stem_depth=self.depths,
            expand_ratio=self.expand_ratios,
            width=self.widths,
        )


def check_phases(phases: Sequence[Phase]) -> None:
    """Raise the error for phases that cannot be trained one after another from scratch."""
    if not phases:
        raise UserError("No phases are given; expected at least one.")
    if phases[0].distill or phases[0].sort_channels:
        raise UserError(
            f"The first phase, {phases[0].name!r}, distils or sorts channels, but no network is trained "
            "before it; set distill and sort_channels to false there."
        )


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a whole training run.

    Attributes:
        batch_size: images per step; learning rates scale with batch_size / 64.
        seed: seed of weights, order, augmentation and sampling.
        momentum: Nesterov momentum of SGD.
        weight_decay: L2 decay of weights; none on batch norm and biases.
        label_smoothing: smoothing of the hard targets.
        distillation_ratio: weight of the soft cross-entropy to the largest network's output.
        dropout: dropout before the classifier.
        max_grad_norm: gradients are clipped to this norm; null for no clipping.
        precision: fp32, bf16 or fp16 (autocast; fp16 only on CUDA).
        checkpoint_every_steps: steps between checkpoints.
        validate_every_epochs: epochs between evaluations; each phase ends with one.
        validation_images: images of the validation split used while training.
        calibration_images: training images used to recalibrate batch norm.
    """

    batch_size: int
    seed: int = 0
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    distillation_ratio: float = 1.0
    dropout: float = 0.1
    max_grad_norm: float | None = None
    precision: str = "fp32"
    checkpoint_every_steps: int = 500
    validate_every_epochs: int = 1
    validation_images: int = 2000
    calibration_images: int = 1000

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        counts = ("batch_size", "checkpoint_every_steps", "validate_every_epochs")
        for name in (*counts, "validation_images", "calibration_images"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")
        for name in ("seed", "momentum", "weight_decay", "distillation_ratio"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0 or more.")
        if not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise UserError("dropout and label_smoothing must be in [0, 1).")


@dataclass(frozen=True)
class FinetuneSettings:
    """How an extracted network is trained further; `lr` is per 64 images and decays with a cosine."""

    epochs: int
    lr: float
    batch_size: int
    momentum: float
    weight_decay: float
    label_smoothing: float
    distillation_ratio: float
    seed: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.epochs < 1 or self.batch_size < 1 or not self.lr > 0:
            raise UserError("epochs and batch_size must be at least 1 and lr positive.")
        if min(self.momentum, self.weight_decay, self.distillation_ratio, self.seed) < 0:
            raise UserError("momentum, weight_decay, distillation_ratio and seed must not be negative.")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}; expected a share in [0, 1).")
