"""What a checkpoint of a training holds: its position, its weights, and how both are read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ofa.common.mismatches import load_state
from ofa.common.plain_values import checked_integer
from ofa.space.space import check_fingerprint
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.checkpoints import misfits_named
from ofa.training.pace import TimeSpent
from ofa.training.phase_weights import PhaseWeights
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
        """Take the values of a checkpoint, also of an older one, which has fewer.

        Raises:
            KeyError: if one is missing; ValueError or TypeError if one is wrong.
        """
        self.position = Position(*(checked_integer(values[n], n) for n in ("phase", "phase_step", "step")))
        # Older checkpoints were written after the validation of their step.
        self.validated_step = checked_integer(values.get("validated_step", values["step"]), "validated_step")
        self.new_parameters = frozenset(values.get("new_parameters", self.new_parameters))
        self.spent.load(values)


@dataclass(frozen=True)
class SavedParts:
    """The parts of a training that a checkpoint holds beside its optimiser.

    Attributes:
        supernet: supernet that is trained.
        state: position and plain values.
        weights: average and best weights.
        scaler: gradient scaler of fp16.
    """

    supernet: AbstractSupernet[nn.Module]
    state: TrainingState
    weights: PhaseWeights
    scaler: torch.amp.GradScaler

    def values(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the values of a checkpoint; `load` is the inverse, but for the optimiser."""
        return {
            "fingerprint": self.supernet.space.fingerprint,
            "supernet": self.supernet.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **self.state.values(),
            **self.weights.values(),
        }

    def check(self, values: Mapping[str, Any], what: str) -> None:
        """Raise the error for the values of a training of another space."""
        check_fingerprint(values.get("fingerprint"), self.supernet.space, what)

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint.

        Raises:
            UserError: naming what does not fit.
        """
        with misfits_named():
            load_state(self.supernet, values["supernet"], "The checkpoint")
            self.scaler.load_state_dict(values["scaler"])
            self.state.load(values)
            self.weights.load(values)
