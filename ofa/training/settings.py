"""Progressive shrinking as data: phases, and the settings that all phases share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ofa.common.config import below_minimum
from ofa.common.errors import UserError, unknown_name
from ofa.evaluation.settings import LossSettings

BATCH_NORMS = ("per_process", "synchronised")
IMPORTANCES = ("l1", "taylor")
ON_NON_FINITE = ("stop", "skip")
PRECISIONS = ("fp32", "bf16", "fp16")


def _check_precision_name(precision: str) -> None:
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)


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
        soft_loss: one of `SOFT_LOSS_NAMES`.
        temperature: temperature of the soft loss.
        dropout: dropout before the classifier.
        max_grad_norm: gradients are clipped to this norm; null for no clipping.
        precision: fp32, bf16 or fp16 (autocast; fp16 only on CUDA).
        batch_norm: source of a step's batch statistics: the images of each process ("per_process",
            faster) or the whole batch ("synchronised", equal to a single process).
        on_non_finite: "stop" the training or "skip" the step if a loss or gradient is not finite.
        checkpoint_every_steps: steps between checkpoints.
        keep_checkpoints: number of newest checkpoints to keep.
        validate_every_epochs: epochs between evaluations; each phase ends with one.
        validation_images: images of the validation split used while training.
        calibration_images: training images used to recalibrate batch norm.
        length: factor of the lengths of all phases and of their warm-ups.
        validate_every_steps: steps between evaluations instead of `validate_every_epochs`; null for the
            epochs, or, in a phase given in steps, for about ten evaluations.
        mixup: alpha of mixup, the blending of images in pairs; 0 for none.
        cutmix: alpha of cutmix, rectangles of other images; 0 for none. With both, one is drawn per step.
        ema_decay: decay of the moving average of the weights, which validation and the end of each phase
            use; null for none.
        early_stopping: evaluations of the last phase without a better mean of the smallest, middle and
            largest network after which it ends; the best weights are used. Null to train to the end.
        importance: rule of the channels that narrow sub-networks keep where a phase sorts them:
            those that the largest weights read ("l1"), or with the largest |weight x gradient| on the
            calibration images ("taylor", for models of one's own).
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
    length: float = 1.0
    validate_every_steps: int | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float | None = None
    early_stopping: int | None = None
    importance: str = "l1"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, names in (
            ("batch_norm", BATCH_NORMS),
            ("on_non_finite", ON_NON_FINITE),
            ("importance", IMPORTANCES),
        ):
            if getattr(self, name) not in names:
                raise unknown_name(name, getattr(self, name), names)
        _check_precision_name(self.precision)
        counts = ("batch_size", "checkpoint_every_steps", "keep_checkpoints", "validate_every_epochs")
        images, rates = ("validation_images", "calibration_images"), ("seed", "momentum", "weight_decay")
        minimums = dict.fromkeys((*counts, *images), 1) | dict.fromkeys((*rates, "mixup", "cutmix"), 0)
        problems = below_minimum(self, minimums)
        for name in ("validate_every_steps", "early_stopping"):
            if getattr(self, name) is not None:
                problems += below_minimum(self, {name: 1})
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            problems.append(f"ema_decay is {self.ema_decay}; expected a number between 0 and 1, or null.")
        if not self.length > 0:
            problems.append(f"length is {self.length}; expected a positive number, the factor of all phases.")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout}; expected a share in [0, 1).")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            problems.append(f"max_grad_norm is {self.max_grad_norm}; expected a positive number, or null.")
        if problems:
            raise UserError(" ".join(problems))
        _ = self.loss  # checks its own settings

    @cached_property
    def loss(self) -> LossSettings:
        """The loss of a sub-network."""
        return LossSettings(self.label_smoothing, self.distillation_ratio, self.soft_loss, self.temperature)


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of fine-tuning one network; `lr` is per 64 images and decays with a cosine.

    Attributes:
        epochs: passes over the training images, 0 to leave a pruned network as it is; null with `steps`.
        steps: number of steps instead of epochs, e.g. for a part of an epoch of many images.
        compile: whether to run torch.compile first, which takes about a minute and pays off
            in long trainings.
        precision: fp32, bf16 or fp16 (autocast; fp16 only on CUDA).
    """

    epochs: int | None
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
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_precision_name(self.precision)
        if (self.epochs is None) == (self.steps is None):
            both = "neither epochs nor steps" if self.epochs is None else "epochs and steps"
            raise UserError(f"A training has {both}; expected one of them, its length (null for the other).")
        if self.length < 0 or self.batch_size < 1 or not self.lr > 0:
            raise UserError("epochs and steps must not be negative, batch_size at least 1 and lr positive.")
        if min(self.momentum, self.weight_decay, self.seed) < 0:
            raise UserError("momentum, weight_decay and seed must not be negative.")
        _ = self.loss  # checks its own settings

    @property
    def length(self) -> int:
        """Number of epochs, or of steps where these are given."""
        length = self.epochs if self.steps is None else self.steps
        assert length is not None
        return length

    @property
    def unit(self) -> str:
        """What `length` counts: "epochs" or "steps"."""
        return "epochs" if self.steps is None else "steps"

    def with_length(self, length: int) -> FinetuneSettings:
        """Return the settings of so many epochs, or of so many steps where steps are given."""
        return replace(self, epochs=length) if self.steps is None else replace(self, steps=length)

    def num_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps on images of which an epoch has so many steps."""
        return self.length * (steps_per_epoch if self.steps is None else 1)

    @cached_property
    def loss(self) -> LossSettings:
        """The loss of the network."""
        return LossSettings(self.label_smoothing, self.distillation_ratio, self.soft_loss, self.temperature)
