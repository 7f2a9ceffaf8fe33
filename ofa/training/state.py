"""`TrainingState`: how far a training is, as the plain values of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa.training.pace import TimeSpent
from ofa.training.schedule import Position


@dataclass
class TrainingState:
    """State of a training beside its supernet and optimiser.

    Attributes:
        new_parameters: names of the parameters that were not taken from the source of a transfer.
        position: position of the next step.
        validated_step: step at which the supernet was last validated.
        spent: time spent so far.
    """

    new_parameters: frozenset[str]
    position: Position = field(default_factory=Position)
    validated_step: int = 0
    spent: TimeSpent = field(default_factory=TimeSpent)

    def values(self) -> dict[str, Any]:
        """Return plain values; `load` is the inverse."""
        return {
            "phase": self.position.phase,
            "phase_step": self.position.phase_step,
            "step": self.position.step,
            "validated_step": self.validated_step,
            "new_parameters": sorted(self.new_parameters),
            "seconds": self.spent.seconds,
            "waited": self.spent.waited,
        }

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint, also of an older one, which has fewer."""
        self.position = Position(values["phase"], values["phase_step"], values["step"])
        # Older checkpoints were written after the validation of their step.
        self.validated_step = values.get("validated_step", values["step"])
        self.new_parameters = frozenset(values.get("new_parameters", self.new_parameters))
        self.spent.load(values)
