"""Phases as steps: the position of a run, its learning rate, and the work done."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.training.optimizer import learning_rate
from ofa.training.phases import Phase


@dataclass
class Position:
    """Position of a run: the next step is `phase_step` of phase `phase`, the `step`-th of the run."""

    phase: int = 0
    phase_step: int = 0
    step: int = 0


@dataclass(frozen=True)
class Schedule:
    """The phases of a run on its data.

    Attributes:
        phases: phases in the order they run.
        steps_per_epoch: number of batches per epoch.
        lr_scale: factor of the learning rates of the phases.
    """

    phases: tuple[Phase, ...]
    steps_per_epoch: int
    lr_scale: float

    def steps(self, phase: Phase) -> int:
        """Return the number of steps of a phase."""
        return phase.epochs * self.steps_per_epoch

    def learning_rate(self, position: Position) -> float:
        """Return the learning rate of the next step."""
        phase = self.phases[position.phase]
        total, warmup = self.steps(phase), phase.warmup_epochs * self.steps_per_epoch
        peak, final = phase.lr * self.lr_scale, phase.final_lr * self.lr_scale
        return learning_rate(position.phase_step, total, warmup, peak, final)

    def work_done(self, position: Position) -> tuple[int, int]:
        """Return work done and total in equal units of cost, for an accurate time left."""
        phase_costs = [round(phase.step_cost * self.steps(phase)) for phase in self.phases]
        phase_work = round(self.phases[position.phase].step_cost * position.phase_step)
        return sum(phase_costs[: position.phase]) + phase_work, sum(phase_costs)
