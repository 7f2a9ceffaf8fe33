"""Progressive shrinking as data: phases, and the settings that all phases share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ofa.config import below_minimum
from ofa.errors import UserError, unknown_name
from ofa.space import SearchSpace
from ofa.training.losses import Loss
from ofa.training.precision import check_precision

TEACHERS = ("frozen", "in_place")
# Of the frozen teacher's forward pass, relative to one sub-network's training step.
_TEACHER_COST = 0.3
BATCH_NORMS = ("per_process", "synchronised")
ON_NON_FINITE = ("stop", "skip")


@dataclass(frozen=True)
class Phase:
    """One stage of training: which networks are drawn, for how long, at which learning rate.

    `kernel_sizes`, `depths`, `expand_ratios` and `widths` are how many of the largest choices of each kind
    are open (null: all), so that a recipe serves every space; `depths` is also that of the stem, `widths`
    that of stages and stem where they are elastic. `lr` is per 64 images, and falls with a cosine to
    `final_lr`; a phase that ends above 0 hands its unfinished descent to the next.

    Attributes:
        teacher: whose logits are the soft targets: of the largest network as it was when distillation began
            ("frozen"), of the largest network of the same step ("in_place"; Yu and Huang 2019), or of none.
        sandwich: whether the largest and the smallest network of the phase are among those of every step.
        compound: whether the phase is restricted to networks whose kernel sizes and expand ratios follow
            their stage's depth.
    """

    epochs: int
    lr: float
    name: str = ""
    kernel_sizes: int | None = None
    depths: int | None = None
    expand_ratios: int | None = None
    warmup_epochs: int = 0
    subnets_per_step: int = 1
    teacher: str | None = "frozen"
    sort_channels: bool = False
    widths: int | None = None
    sandwich: bool = False
    compound: bool = False
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.epochs < 1 or self.subnets_per_step < 1 or not self.lr > 0 or self.warmup_epochs < 0:
            raise UserError(
                "epochs and subnets_per_step of a phase must be at least 1, lr positive, "
                "warmup_epochs not negative."
            )
        if not 0 <= self.final_lr <= self.lr:
            raise UserError(f"final_lr of a phase is {self.final_lr}; expected from 0 to its lr, {self.lr}.")
        if self.teacher is not None and self.teacher not in TEACHERS:
            raise unknown_name("teacher", self.teacher, TEACHERS)
        if self.teacher == "in_place" and not self.sandwich:
            raise UserError(
                "A phase with the teacher in_place distils from the largest network of each step; "
                "set sandwich to true, so that every step has one."
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

    @property
    def step_cost(self) -> float:
        """Time of a step in trainings of one sub-network, for the time left; a teacher only runs forwards."""
        return self.subnets_per_step + _TEACHER_COST * (self.teacher == "frozen")

    def space(self, whole: SearchSpace) -> SearchSpace:
        """Return `whole` restricted to the networks that this phase opens; every resolution is open."""
        return whole.restrict(compound=self.compound).largest_choices(
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
    if phases[0].teacher == "frozen" or phases[0].sort_channels:
        raise UserError(
            f"The first phase, {phases[0].name!r}, has a frozen teacher or sorts channels, but no network is "
            "trained before it; set teacher to null and sort_channels to false there."
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
        distillation_ratio: weight of the soft loss to the teacher's output.
        soft_loss: one of `ofa.training.losses.SOFT_LOSSES`.
        temperature: of the soft loss.
        dropout: dropout before the classifier.
        max_grad_norm: gradients are clipped to this norm; null for no clipping.
        precision: fp32, bf16 or fp16 (autocast; fp16 only on CUDA).
        batch_norm: whether the statistics of a step are those of each process's images ("per_process",
            faster) or of the whole batch ("synchronised", as one process would have them).
        on_non_finite: "stop" at a loss or gradient that is not finite, or "skip" such a step.
        checkpoint_every_steps: steps between checkpoints.
        keep_checkpoints: the newest so many are kept.
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
    soft_loss: str = "soft_cross_entropy"
    temperature: float = 1.0
    precision: str = "fp32"
    batch_norm: str = "per_process"
    on_non_finite: str = "stop"
    checkpoint_every_steps: int = 500
    keep_checkpoints: int = 2
    validate_every_epochs: int = 1
    validation_images: int = 2000
    calibration_images: int = 1000

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, known in (
            ("batch_norm", BATCH_NORMS),
            ("on_non_finite", ON_NON_FINITE),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        check_precision(self.precision)
        counts = ("batch_size", "checkpoint_every_steps", "keep_checkpoints", "validate_every_epochs")
        images, rates = ("validation_images", "calibration_images"), ("seed", "momentum", "weight_decay")
        minimums = dict.fromkeys((*counts, *images), 1) | dict.fromkeys(rates, 0)
        problems = below_minimum(self, minimums)
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout}; expected a share in [0, 1).")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            problems.append(f"max_grad_norm is {self.max_grad_norm}; expected a positive number, or null.")
        if problems:
            raise UserError(" ".join(problems))
        _ = self.loss  # which checks its own settings

    @cached_property
    def loss(self) -> Loss:
        """The loss of a sub-network."""
        return Loss(self.label_smoothing, self.distillation_ratio, self.soft_loss, self.temperature)


@dataclass(frozen=True)
class FinetuneSettings:
    """How an extracted network is trained further; `lr` is per 64 images and decays with a cosine.

    Attributes:
        compile: whether torch.compile makes kernels of this one network first: a minute or so, which pays
            in long trainings.
        precision: fp32, bf16 or fp16 (autocast; fp16 only on CUDA).
    """

    epochs: int
    lr: float
    batch_size: int
    momentum: float
    weight_decay: float
    label_smoothing: float
    distillation_ratio: float
    seed: int
    soft_loss: str = "soft_cross_entropy"
    temperature: float = 1.0
    compile: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_precision(self.precision)
        if self.epochs < 1 or self.batch_size < 1 or not self.lr > 0:
            raise UserError("epochs and batch_size must be at least 1 and lr positive.")
        if min(self.momentum, self.weight_decay, self.seed) < 0:
            raise UserError("momentum, weight_decay and seed must not be negative.")
        _ = self.loss  # which checks its own settings

    @cached_property
    def loss(self) -> Loss:
        """The loss of the network."""
        return Loss(self.label_smoothing, self.distillation_ratio, self.soft_loss, self.temperature)
