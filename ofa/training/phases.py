"""`Phase`: one stage of training as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ofa.common.errors import UserError, unknown_name
from ofa.space.space import SearchSpace

Space = TypeVar("Space", bound=SearchSpace)
TEACHERS = ("frozen", "in_place")
TRAINED_PARTS = ("all", "classifier")

# Cost of a forward pass relative to a training step of one sub-network.
FORWARD_COST = 0.3


@dataclass(frozen=True)
class Phase:
    """One stage of training: sampled networks, duration and learning rate.

    Its length is given in `epochs` or, for sets whose epochs are short, in `steps`.

    `kernel_sizes`, `depths`, `expand_ratios` and `widths` are the numbers of largest choices of each kind
    that are open (null: all), so one recipe fits every space. `depths` also applies to the stem, `widths` to
    stages and stem if they are elastic; `ranks`, those of split convolutions, is as `widths` if it is null.
    `lr` is per 64 images and decays with a cosine to `final_lr`; a `final_lr` above 0 leaves the rest of the
    descent to the next phase.

    Attributes:
        epochs: number of passes over the training images; null if `steps` is given.
        lr: peak of the learning rate, per 64 images.
        teacher: network whose outputs are the soft targets: the largest network at the start of distillation
            ("frozen"), the largest network of the same step ("in_place"; Yu and Huang 2019), or None.
        sandwich: whether the largest and the smallest network of the phase are trained in every step.
        compound: whether the phase is restricted to networks whose kernel sizes and expand ratios follow
            their stage's depth.
        steps: number of steps; null if `epochs` is given.
        warmup_steps: steps of the linear warm-up, instead of `warmup_epochs`.
        trains: "all" parameters, or those of the "classifier" alone; the others get neither gradient nor
            weight decay.
        frozen_batch_norm: whether batch norms normalise by their running statistics, and keep these, their
            scales and their shifts.
        new_lr_factor: factor of the learning rate of the parameters that were not taken from the source of
            a transfer.
    """

    epochs: int | None = None
    lr: float = 0.0
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
    steps: int | None = None
    warmup_steps: int = 0
    trains: str = "all"
    frozen_batch_norm: bool = False
    new_lr_factor: float = 1.0
    ranks: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = self._problems()
        if problems:
            raise UserError(" ".join(problems))
        if self.teacher is not None and self.teacher not in TEACHERS:
            raise unknown_name("teacher", self.teacher, TEACHERS)
        if self.trains not in TRAINED_PARTS:
            raise unknown_name("trains", self.trains, TRAINED_PARTS)
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
        for name in ("kernel_sizes", "depths", "expand_ratios", "widths", "ranks"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UserError(f"{name} of a phase is {count}; expected at least 1, or null for all.")

    def _problems(self) -> list[str]:
        """Return one sentence per number out of range."""
        problems = []
        if (self.epochs is None) == (self.steps is None):
            both = "neither epochs nor steps" if self.epochs is None else "epochs and steps"
            problems.append(f"A phase has {both}; expected one of them, its length (null for the other).")
        if self.warmup_epochs and self.warmup_steps:
            problems.append(
                "A phase has warmup_epochs and warmup_steps; give one of them and 0 for the other."
            )
        minima = {"epochs": 1, "steps": 1, "subnets_per_step": 1, "warmup_epochs": 0, "warmup_steps": 0}
        for name, minimum in minima.items():
            count = getattr(self, name)
            if count is not None and count < minimum:
                problems.append(f"{name} of a phase is {count}; expected at least {minimum}.")
        for name in ("lr", "new_lr_factor"):
            if not getattr(self, name) > 0:
                problems.append(f"{name} of a phase is {getattr(self, name)}; expected a positive number.")
        if not 0 <= self.final_lr <= max(self.lr, 0.0):
            problems.append(f"final_lr of a phase is {self.final_lr}; expected from 0 to its lr, {self.lr}.")
        return problems

    @property
    def step_cost(self) -> float:
        """Cost of a step relative to training one sub-network; used for the time left."""
        cost_per_subnet = 1.0 if self.trains == "all" else FORWARD_COST
        return cost_per_subnet * self.subnets_per_step + FORWARD_COST * (self.teacher == "frozen")

    def space(self, whole_space: Space) -> Space:
        """Return `whole_space` restricted to the open networks of this phase; every resolution is open."""
        return whole_space.restrict(compound=self.compound).keep_largest(
            {
                "kernel_size": self.kernel_sizes,
                "depth": self.depths,
                "stem_depth": self.depths,
                "expand_ratio": self.expand_ratios,
                "width": self.widths,
                "rank": self.widths if self.ranks is None else self.ranks,
            }
        )


def check_phases(phases: Sequence[Phase], trained: bool = False) -> None:
    """Raise the error for phases that cannot be trained in sequence.

    Args:
        phases: phases in the order they run.
        trained: whether the supernet is already trained; otherwise the first phase has no network
            to distil from or to sort, and no features for a classifier alone.
    """
    if not phases:
        raise UserError("No phases are given; expected at least one.")
    if not trained and (phases[0].teacher == "frozen" or phases[0].sort_channels):
        raise UserError(
            f"The first phase, {phases[0].name!r}, has a frozen teacher or sorts channels, but no network is "
            "trained before it: give weights (init, or model.weights), or set teacher to null and "
            "sort_channels to false there."
        )
    if not trained and phases[0].trains == "classifier":
        raise UserError(
            f"The first phase, {phases[0].name!r}, trains the classifier alone, but nothing is trained below "
            "it; start from given weights (init=SOURCE), or choose other phases."
        )
