"""Phases as steps: the position of a run, its learning rate, and the work done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from ofa.data.base import ImageData
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.optimizer import learning_rate
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.step_costs import step_costs, validation_cost

NUM_VALIDATIONS = 10
"""Validations of a phase given in steps, by default."""


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
        length: factor of the lengths of all phases and of their warm-ups.
        validate_every_epochs: epochs between validations of a phase given in epochs.
        validate_every_steps: steps between validations of any phase, instead; None for the epochs, or, in a
            phase given in steps, for `NUM_VALIDATIONS` per phase.
        step_costs: mean cost of a step of each phase; empty for what the phases say without a supernet.
        validation_cost: cost of the networks of a validation, each with as many images as a step.
    """

    phases: tuple[Phase, ...]
    steps_per_epoch: int
    lr_scale: float
    length: float = 1.0
    validate_every_epochs: int = 1
    validate_every_steps: int | None = None
    step_costs: tuple[float, ...] = ()
    validation_cost: float = 4.0

    def steps(self, phase: Phase) -> int:
        """Return the number of steps of a phase."""
        count = phase.steps if phase.epochs is None else phase.epochs * self.steps_per_epoch
        assert count is not None
        return max(1, round(self.length * count))

    @property
    def total_steps(self) -> int:
        """Number of steps of all phases."""
        return sum(map(self.steps, self.phases))

    def learning_rate(self, position: Position) -> float:
        """Return the learning rate of the next step."""
        phase = self.phases[position.phase]
        warmup = phase.warmup_steps + phase.warmup_epochs * self.steps_per_epoch
        peak, final = phase.lr * self.lr_scale, phase.final_lr * self.lr_scale
        warmup_steps = round(self.length * warmup)
        return learning_rate(position.phase_step, self.steps(phase), warmup_steps, peak, final)

    def step_cost(self, phase: int) -> float:
        """Return the mean cost of a step of the phase with this number."""
        return self.step_costs[phase] if self.step_costs else self.phases[phase].step_cost

    def work_done(self, position: Position) -> tuple[int, int]:
        """Return work done and total in hundredths of a unit of cost, for an accurate time left."""
        costs = [round(100 * self.step_cost(i) * self.steps(phase)) for i, phase in enumerate(self.phases)]
        phase_work = round(100 * self.step_cost(position.phase) * position.phase_step)
        return sum(costs[: position.phase]) + phase_work, sum(costs)

    def validation_interval(self, phase: Phase) -> int:
        """Return the steps between two validations of a phase; its last step has one in any case."""
        if self.validate_every_steps is not None:
            return self.validate_every_steps
        if phase.epochs is not None:
            return self.validate_every_epochs * self.steps_per_epoch
        return math.ceil(self.steps(phase) / NUM_VALIDATIONS)

    def is_validation_due(self, position: Position) -> bool:
        """Return whether the phase has a validation at `position`."""
        phase = self.phases[position.phase]
        is_last = position.phase_step == self.steps(phase)
        return is_last or (
            position.phase_step > 0 and position.phase_step % self.validation_interval(phase) == 0
        )

    def steps_to_validation(self, position: Position) -> int:
        """Return the number of steps from `position` to the next validation after it."""
        phase = self.phases[position.phase]
        interval = self.validation_interval(phase)
        return min(interval - position.phase_step % interval, self.steps(phase) - position.phase_step)

    def num_validations(self, position: Position) -> int:
        """Return the number of validations that follow `position`, those of later phases included."""
        counts = [math.ceil(self.steps(phase) / self.validation_interval(phase)) for phase in self.phases]
        phase = self.phases[position.phase]
        return sum(counts[position.phase :]) - position.phase_step // self.validation_interval(phase)

    def position_text(self, position: Position) -> str:
        """Return the name of the phase and the number of the epoch or step that `position` stands in."""
        phase = self.phases[position.phase]
        if phase.epochs is None:
            return f"{phase.name} step {position.phase_step + 1}/{self.steps(phase)}"
        num_epochs = math.ceil(self.steps(phase) / self.steps_per_epoch)
        return f"{phase.name} epoch {position.phase_step // self.steps_per_epoch + 1}/{num_epochs}"


def schedule_of(
    recipe: Recipe, data: ImageData, supernet: AbstractSupernet[nn.Module] | None = None
) -> Schedule:
    """Return the schedule of a recipe on its images; with the supernet, the work is counted more exactly.

    Raises:
        UserError: if there are fewer images than a batch has.
    """
    settings = recipe.settings
    return Schedule(
        recipe.phases,
        data.num_batches(settings.batch_size),
        settings.batch_size / 64,
        settings.length,
        settings.validate_every_epochs,
        settings.validate_every_steps,
        *(() if supernet is None else (step_costs(supernet, recipe), validation_cost(supernet, recipe))),
    )
