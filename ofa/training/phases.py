"""`Phase`: one stage of training as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ofa.common.errors import UserError, unknown_name
from ofa.space.space import SearchSpace

Space = TypeVar("Space", bound=SearchSpace)
TEACHERS = ("frozen", "in_place")


# Of the frozen teacher's forward pass, relative to one sub-network's training step.
_TEACHER_COST = 0.3


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

    def space(self, whole_space: Space) -> Space:
        """Return `whole_space` restricted to the networks that this phase opens; every resolution is open."""
        return whole_space.restrict(compound=self.compound).keep_largest(
            {
                "kernel_size": self.kernel_sizes,
                "depth": self.depths,
                "stem_depth": self.depths,
                "expand_ratio": self.expand_ratios,
                "width": self.widths,
            }
        )


def check_phases(phases: Sequence[Phase], trained: bool = False) -> None:
    """Raise the error for phases that cannot be trained one after another.

    Args:
        phases: in the order they run.
        trained: whether the supernet comes with trained weights; otherwise the first phase has no network
            to distil from or to sort.
    """
    if not phases:
        raise UserError("No phases are given; expected at least one.")
    if not trained and (phases[0].teacher == "frozen" or phases[0].sort_channels):
        raise UserError(
            f"The first phase, {phases[0].name!r}, has a frozen teacher or sorts channels, but no network is "
            "trained before it; set teacher to null and sort_channels to false there."
        )
