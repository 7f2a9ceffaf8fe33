"""`WeightAverage`: the exponential moving average of a network's weights and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ofa.common.mismatches import checked_state
from ofa.common.plain_values import checked_integer


class WeightAverage:
    """Average of the weights and buffers of a network since this object was made.

    The decay of update k (from 0) is min(decay, (1 + k) / (10 + k)), so that the first weights are soon
    forgotten (as in Polyak averages of TensorFlow).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with a copy of the present values.

        Args:
            network: network on its device and in its memory format.
            decay: share of the old average that an update keeps, at most; 0 to 1.
        """
        self._network, self._decay, self._num_updates = network, decay, 0
        self._average = {name: value.clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the present values; integers, such as counts of batches, are copied."""
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        self._num_updates += 1
        for name, value in self._network.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the network the average for a while; not to be nested."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._network.state_dict().items():
            present = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(present)

    def take_over(self) -> None:
        """Give the network the average for good; this object is then of no further use."""
        self._network.load_state_dict(self._average)

    def values(self) -> dict[str, Any]:
        """Return the plain values of a checkpoint; `load` is the inverse."""
        return {"num_updates": self._num_updates, "average": self._average}

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint."""
        self._num_updates = checked_integer(values["num_updates"], "num_updates")
        state = checked_state(values["average"], self._average, "The average of the checkpoint")
        for name, value in state.items():
            self._average[name].copy_(value)
