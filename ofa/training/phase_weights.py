"""`PhaseWeights`: which weights are validated while a phase runs, and which ones it results in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from ofa.common.metric import Metric
from ofa.training.averaging import WeightAverage
from ofa.training.early_stopping import EarlyStopping
from ofa.training.settings import TrainSettings


class PhaseWeights:
    """The weights of a supernet, their moving average, and the best ones of the last phase.

    Without `ema_decay` and `early_stopping` these are the supernet's weights.
    """

    def __init__(self, supernet: nn.Module, settings: TrainSettings, metric: Metric) -> None:
        """Take the supernet, on its device and in its memory format, and the metric of validation."""
        self._supernet, self._decay = supernet, settings.ema_decay
        self._average: WeightAverage | None = None
        allowed = settings.early_stopping
        self._stopping = None if allowed is None else EarlyStopping(allowed, metric)

    def begin_phase(self) -> None:
        """Begin a new average at the present weights."""
        self._average = None if self._decay is None else WeightAverage(self._supernet, self._decay)

    def update(self) -> None:
        """Add the weights after a step to the average."""
        if self._average is not None:
            self._average.update()

    @contextmanager
    def validated(self) -> Iterator[None]:
        """Give the supernet the weights that are validated for a while; not to be nested."""
        if self._average is None:
            yield
            return
        with self._average.swapped_in():
            yield

    def add_validation(self, step: int, scores: Mapping[str, float]) -> None:
        """Remember the weights of a validation of the last phase if they are the best; inside `validated`."""
        if self._stopping is not None:
            self._stopping.add(step, scores, self._supernet)

    @property
    def is_exhausted(self) -> bool:
        """Whether the last phase is to end, because its validations no longer become better."""
        return self._stopping is not None and self._stopping.is_exhausted

    def end_phase(self, step: int, is_last: bool) -> str | None:
        """Give the supernet the weights that the phase results in; return a line for the user, if any."""
        if self._average is not None:
            self._average.take_over()
            self._average = None
        if not is_last or self._stopping is None:
            return None
        return self._stopping.restore(self._supernet, step)

    def values(self) -> dict[str, Any]:
        """Return the plain values of a checkpoint; `load` is the inverse."""
        values: dict[str, Any] = {}
        if self._average is not None:
            values["average"] = self._average.values()
        if self._stopping is not None:
            values["early_stopping"] = self._stopping.values()
        return values

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint whose weights the supernet has."""
        if "average" in values:
            self.begin_phase()
            if self._average is not None:
                self._average.load(values["average"])
        if self._stopping is not None and "early_stopping" in values:
            self._stopping.load(values["early_stopping"])
