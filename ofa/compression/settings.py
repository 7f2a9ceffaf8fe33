"""What the steps of a compression are called, and the pattern of zeros: settings that need no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofa.common.errors import UserError

FORMS_OF_STEPS: Mapping[str, tuple[str, ...]] = {
    "split": ("split",),
    "tucker": ("tucker",),
    "penni": ("penni", "escalate"),
}
"""The steps that change the form of convolutions, with the forms that each offers."""

FORM_NAMES = tuple(form for forms in FORMS_OF_STEPS.values() for form in forms)
"""Names of the forms of convolutions; see `ofa.compression.changes.FORMS`."""

BLOCKS = (4, 8, 16)

WEIGHT_BITS = (4, 8)
"""Bits of a weight that a network can be trained for."""


@dataclass(frozen=True)
class SparsePattern:
    """How many weights are zero, and where; and how many inputs.

    Attributes:
        share: share of zeros, below 1.
        block: number of consecutive input channels of which `share` is zero, as 2 of 4; None for zeros
            anywhere in a layer.
        inputs: share of the values of as many consecutive channels that layers read as zero, the smallest
            ones at every place of every image: 0, or 0.5 where `share` is 0.75.
    """

    share: float = 0.5
    block: int | None = 4
    inputs: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = []
        if not 0 < self.share < 1:
            problems.append(f"share is {self.share:g}; expected a share of zeros between 0 and 1.")
        if self.block is not None and self.block not in BLOCKS:
            problems.append(
                f"block is {self.block}; expected {', '.join(map(str, BLOCKS))}, or null for zeros anywhere."
            )
        elif self.block is not None and self.share * self.block % 1:
            problems.append(f"{self.share:g} of {self.block} weights are no whole number.")
        if self.inputs not in (0, 0.5):
            problems.append(f"inputs is {self.inputs:g}; expected 0 or 0.5.")
        elif self.inputs and (self.share != 0.75 or self.block is None):
            problems.append("inputs of 0.5 need a share of 0.75 in blocks.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def text(self) -> str:
        """The pattern for users, e.g. "2 of 4 weights are zero"."""
        if self.block is None:
            return f"{100 * self.share:g} % of the weights are zero"
        inputs = f" and {self.num_zero_inputs} of {self.block} inputs" if self.inputs else ""
        return f"{self.share * self.block:g} of {self.block} weights{inputs} are zero"

    @property
    def num_zero_inputs(self) -> int:
        """Number of inputs that are zero in each block; 0 where all are read."""
        return 0 if self.block is None else round(self.inputs * self.block)


@dataclass(frozen=True)
class PenniSettings:
    """How kernels become combinations of basis kernels, with few coefficients.

    Attributes:
        rank: basis kernels of a layer, where no limit chooses them.
        penalty: weight of the L1 norm of the coefficients in the loss.
        length: length of the training with the penalty, in epochs or steps as that of fine-tuning; None for
            the same length.
        turn_epochs: epochs of this training in which the coefficients alone are trained, then the basis
            alone; 0 for both together.
        threshold: coefficients below so many standard deviations of the layer's become zero.
        pointwise: whether weights of 1x1 convolutions are penalised and pruned likewise.
    """

    rank: int = 5
    penalty: float = 1e-4
    length: int | None = None
    turn_epochs: int = 1
    threshold: float = 1.0
    pointwise: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = []
        if self.rank < 1:
            problems.append(f"penni.rank is {self.rank}; expected at least 1 basis kernel.")
        if self.length is not None and self.length < 1:
            problems.append(f"penni.length is {self.length}; expected at least 1, or null.")
        if self.turn_epochs < 0:
            problems.append(f"penni.turn_epochs is {self.turn_epochs}; expected epochs, or 0.")
        for name in ("penalty", "threshold"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                problems.append(f"penni.{name} is {value:g}; expected a number from 0 on.")
        if problems:
            raise UserError(" ".join(problems))


@dataclass(frozen=True)
class ChannelSettings:
    """How the channels of layers are left out.

    Attributes:
        macs_share: share of the multiply-accumulates that is left; None without the step.
        candidates: number of networks that are compared.
        divisor: numbers of channels are multiples of it.
        validation_images: validation images on which the networks are compared.
    """

    macs_share: float | None = None
    candidates: int = 8
    divisor: int = 8
    validation_images: int = 2000

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = []
        if self.macs_share is not None and not 0 < self.macs_share < 1:
            problems.append(f"channels.macs_share is {self.macs_share:g}; expected a share between 0 and 1.")
        problems += [
            f"channels.{name} is {getattr(self, name)}; expected at least 1."
            for name in ("candidates", "divisor", "validation_images")
            if getattr(self, name) < 1
        ]
        if problems:
            raise UserError(" ".join(problems))
