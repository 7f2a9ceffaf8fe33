"""`EarlyStopping`: the best validation of the last phase, its weights, and when to stop waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ofa.common.metric import Metric
from ofa.common.mismatches import load_state
from ofa.common.plain_values import checked_integer, checked_number, checked_object

JUDGED = ("smallest", "middle", "largest")
"""Sub-networks whose mean metric is judged."""


class EarlyStopping:
    """Remembers the weights with the best mean of the smallest, middle and largest sub-network.

    Attributes:
        best_step: step of the best validation; None before the first one.
    """

    def __init__(self, max_validations: int, metric: Metric) -> None:
        """Allow `max_validations` validations of `metric` in a row without a new best."""
        self._max_validations, self._metric = max_validations, metric
        self.best_step: int | None = None
        self._best_value, self._num_since, self._state = 0.0, 0, dict[str, Tensor]()

    def add(self, step: int, scores: Mapping[str, float], network: nn.Module) -> None:
        """Judge a validation, and copy the weights and buffers of `network` if it is the best so far."""
        value = sum(scores[name] for name in JUDGED) / len(JUDGED)
        sign = self._metric.sign
        if self.best_step is not None and sign * value <= sign * self._best_value:
            self._num_since += 1
            return
        self.best_step, self._best_value, self._num_since = step, value, 0
        self._state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    @property
    def is_exhausted(self) -> bool:
        """Whether the allowed number of validations has passed without a new best."""
        return self._num_since >= self._max_validations

    def restore(self, network: nn.Module, step: int) -> str | None:
        """Give `network` the best weights, if there was a validation.

        Returns:
            A line for the user; None if the weights are those of `step`, the last one.
        """
        if self.best_step in (None, step):
            return None
        load_state(network, self._state, "The best weights of the checkpoint")
        shown = f"mean {self._metric.title} {self._metric.show(self._best_value)}"
        if not self.is_exhausted:
            return f"the best validation was that after step {self.best_step} ({shown}); its weights are used"
        return (
            f"stopped after step {step}: {self._num_since} validations without a better one; the weights are "
            f"those after step {self.best_step} ({shown})"
        )

    def values(self) -> dict[str, Any]:
        """Return the plain values of a checkpoint; `load` is the inverse."""
        return {
            "step": self.best_step,
            "value": self._best_value,
            "num_since": self._num_since,
            "state": self._state,
        }

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint; `restore` checks the weights."""
        step = values["step"]
        self.best_step = None if step is None else checked_integer(step, "step")
        self._best_value = checked_number(values["value"], "value")
        self._num_since = checked_integer(values["num_since"], "num_since")
        self._state = dict(checked_object(values["state"], "state"))
