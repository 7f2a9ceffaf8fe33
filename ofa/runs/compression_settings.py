"""`CompressionSettings`: the steps that make a trained network smaller, and within what."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ofa.common.config import below_minimum
from ofa.common.errors import UserError, unknown_name
from ofa.compression.settings import (
    FORMS_OF_STEPS,
    WEIGHT_BITS,
    ChannelSettings,
    PenniSettings,
    SparsePattern,
)
from ofa.graph.settings import MIN_FITTED_IMAGES
from ofa.training.settings import FinetuneSettings

CHANNELS, PENNI, SPARSE, FINETUNE, QAT = "channels", "penni", "sparse", "finetune", "qat"
BF16, INT8 = "bf16", "int8"
STEPS = (CHANNELS, *FORMS_OF_STEPS, SPARSE, FINETUNE, QAT, BF16, INT8)
TRAININGS = (FINETUNE, QAT)
PRECISIONS = (BF16, INT8)
"""The steps, in the order in which they can be done; forms of convolutions are chosen together."""


@dataclass(frozen=True)
class CompressionLimits:
    """The upper bound of the changed network's cost, one of them; None for the others.

    Attributes:
        latency_ms: milliseconds of a run on the device.
        latency_share: the same as a share of the latency of the network.
        macs_share: multiply-accumulates as a share of those of the network.
    """

    latency_ms: float | None = None
    latency_share: float | None = None
    macs_share: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges, and that there is at most one bound."""
        problems = []
        if self.latency_ms is not None and not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            problems.append(f"limits.latency_ms is {self.latency_ms:g}; expected milliseconds above 0.")
        for name in ("latency_share", "macs_share"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                problems.append(f"limits.{name} is {share:g}; expected a share between 0 and 1.")
        if len(self.bounds) > 1:
            problems.append(f"{' and '.join(self.bounds)} are given; expected one limit.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def bounds(self) -> Mapping[str, float]:
        """The bounds that are given, by name."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}

    @property
    def cost(self) -> str:
        """Name of the cost that is bounded; a key of `ofa.compression.plan.UNITS`."""
        return "macs" if self.macs_share is not None else "latency_ms"

    def bound(self, total: float) -> float:
        """Return the bound for a network of this cost."""
        if self.latency_ms is not None:
            return self.latency_ms
        (share,) = self.bounds.values()
        return share * total


@dataclass(frozen=True, kw_only=True)
class CompressionSettings:
    """The steps that make a trained network smaller, and within what.

    Attributes:
        steps: names in `STEPS`, in their order.
        limits: bound of the cost, for steps that change the form of convolutions.
        channels: settings of the step `channels`.
        sparse: pattern of the zeros of the step `sparse`.
        penni: settings of the step `penni`.
        max_loss: points of the metric on validation images that may be lost in all; None for any.
        harm_images: training images on which the harm of a change is measured.
        calibration_images: training images that recalibrate batch norm.
        reconstruction_images: training images on which layers are fitted that read fewer channels, or that
            end the other form of a convolution; 0 fits none.
        quantisation_images: training images from which int8 takes the ranges of activations.
        keep_layers: layers that stay in floating point in int8: none, or auto.
        max_int8_loss: points that int8 may lose with keep_layers=auto.
        control: whether the uncompressed network is fine-tuned for as long, to compare.
        weight_bits: bits of the weights for which the step `qat` trains.
        finetuning: training of the steps `penni`, `finetune` and `qat`, with the uncompressed network as the
            teacher.
    """

    steps: tuple[str, ...]
    limits: CompressionLimits = field(default_factory=CompressionLimits)
    channels: ChannelSettings = field(default_factory=ChannelSettings)
    sparse: SparsePattern = field(default_factory=SparsePattern)
    penni: PenniSettings = field(default_factory=PenniSettings)
    max_loss: float | None = None
    harm_images: int = 64
    calibration_images: int = 1000
    reconstruction_images: int = 256
    quantisation_images: int = 300
    keep_layers: str = "none"
    max_int8_loss: float = 0.5
    control: bool = True
    weight_bits: int = 8
    finetuning: FinetuneSettings

    def __post_init__(self) -> None:
        """Check the steps and that limits fit them; all errors are reported at once."""
        for name in self.steps:
            if name not in STEPS:
                raise unknown_name("step", name, STEPS)
        problems = _order_problems(self.steps)
        problems += below_minimum(self, {"harm_images": 2, "calibration_images": 1, "quantisation_images": 1})
        if self.reconstruction_images:
            problems += below_minimum(self, {"reconstruction_images": MIN_FITTED_IMAGES})
        if self.max_loss is not None and not 0 <= self.max_loss <= 100:
            problems.append(f"max_loss is {self.max_loss:g}; expected points from 0 to 100.")
        if (CHANNELS in self.steps) != (self.channels.macs_share is not None):
            problems.append(
                "The step channels and channels.macs_share, e.g. channels.macs_share=0.6, are given together "
                "or not at all."
            )
        if self.forms and not self.limits.bounds and not self.is_uniform:
            problems.append(
                f"{' and '.join(self.forms)} need a limit; give limits.latency_share=0.6 and a device, or "
                "limits.macs_share=0.5."
            )
        if not self.forms and self.limits.bounds:
            problems.append(
                f"limits.{' and limits.'.join(self.limits.bounds)} belong to steps that change the form of "
                f"convolutions: {', '.join(FORMS_OF_STEPS)}."
            )
        if {PENNI, SPARSE} <= set(self.steps):
            problems.append("penni and sparse both set weights to zero; expected one of them.")
        if (self.trainings or PENNI in self.steps) and self.finetuning.length < 1:
            problems.append(
                f"finetuning.{self.finetuning.unit} is {self.finetuning.length}; expected at least 1, or "
                f"steps without {' and '.join(step for step in self.steps if step in (PENNI, *TRAININGS))}."
            )
        if self.weight_bits not in WEIGHT_BITS:
            problems.append(f"weight_bits is {self.weight_bits}; expected 4 or 8.")
        if {BF16, INT8} <= set(self.steps):
            problems.append("bf16 and int8 are two precisions; expected one of them.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def forms(self) -> tuple[str, ...]:
        """The steps that change the form of convolutions."""
        return tuple(step for step in self.steps if step in FORMS_OF_STEPS)

    @property
    def trainings(self) -> tuple[str, ...]:
        """The steps that train the network."""
        return tuple(step for step in self.steps if step in TRAININGS)

    @property
    def offered_forms(self) -> tuple[str, ...]:
        """The forms of convolutions that the steps offer; keys of `ofa.compression.changes.FORMS`."""
        return tuple(form for step in self.forms for form in FORMS_OF_STEPS[step])

    @property
    def is_uniform(self) -> bool:
        """Whether all convolutions take as many basis kernels, as no limit chooses them."""
        return self.forms == (PENNI,) and not self.limits.bounds

    @property
    def penni_lengths(self) -> tuple[int, int]:
        """Lengths of the two trainings of the step `penni`."""
        length = self.finetuning.length
        return length if self.penni.length is None else self.penni.length, length

    @property
    def precision(self) -> str | None:
        """The precision below fp32 in which the network will run; None for fp32."""
        return self.steps[-1] if self.steps[-1] in PRECISIONS else None

    def record(self) -> dict[str, Any]:
        """Return the plain values that decide the result."""
        names = [entry.name for entry in dataclasses.fields(CompressionSettings)]
        values = dataclasses.asdict(self)
        for step in {CHANNELS, PENNI} - set(self.steps):
            names.remove(step)
        return {name: values[name] for name in names}


def _order_problems(steps: Sequence[str]) -> list[str]:
    """Return what is wrong with the number and the order of the steps."""
    if not steps:
        return [f"There are no steps; expected some of {', '.join(STEPS)}."]
    problems = [f"{name} stands twice in steps." for name in dict.fromkeys(steps) if steps.count(name) > 1]
    for step, following in itertools.pairwise(steps):
        if _rank(step) > _rank(following):
            problems.append(f"{following} comes before {step}: {_REASONS[step]}.")
    return problems


def _rank(step: str) -> int:
    """Return the position in the order; forms of convolutions share theirs."""
    return 1 if step in FORMS_OF_STEPS else STEPS.index(step)


_REASONS = {
    **dict.fromkeys(FORMS_OF_STEPS, "the form of a layer is chosen for its channels"),
    SPARSE: "the zeros of a layer are lost when it is split",
    FINETUNE: "what is changed after a training is not trained",
    QAT: "a further training would lose the rounding of the weights",
    BF16: "a network in bf16 cannot be changed or trained further",
    INT8: "a network in int8 cannot be changed or trained further",
}
