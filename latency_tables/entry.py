"""How the entry of one layer is measured: the one place to replace for a better method.

A method turns a layer into a `Program`, something that an engine can time, and names a baseline program.
The entry is the program's latency less the baseline's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from ofa.layers import LayerSpec
from ofa.static import static_layer

NETWORK_VISITS_PER_ROUND = 3
"""A network runs longer than a layer, so that fewer of its runs are undisturbed, and it stands for itself
where the noise of layers averages out in a sum."""


@dataclass(frozen=True)
class Program:
    """Something to time.

    Attributes:
        key: its name, unique among the programs of a table.
        build: makes the module; called when it is about to be timed.
        image_shape: shape of one input without the batch dimension: (channels, height, width).
        visits_per_round: how often it is timed in each round.
    """

    key: str
    build: Callable[[], nn.Module]
    image_shape: tuple[int, int, int]
    visits_per_round: int = 1


class MeasuringMethod(Protocol):
    """How layers become programs; measurements of different methods never share a table."""

    @property
    def name(self) -> str:
        """Short text that is stored in the table."""
        ...

    def program(self, spec: LayerSpec) -> Program:
        """Return what is timed for a layer; its key is the layer's key."""
        ...

    def baseline(self) -> Program:
        """Return the program whose latency is no part of a layer."""
        ...


class IsolatedLayers:
    """Each layer alone with random weights and input.

    A call of the engine costs something by itself (for ONNX Runtime as much as a small layer), which a
    whole network pays once and not per layer. Passing a single number through is the baseline for it.
    """

    @property
    def name(self) -> str:
        """See `MeasuringMethod.name`."""
        return "isolated layers less call overhead"

    def program(self, spec: LayerSpec) -> Program:
        """See `MeasuringMethod.program`."""
        shape = (spec.input_channels, spec.input_size, spec.input_size)
        return Program(spec.key, lambda: static_layer(spec), shape)

    def baseline(self) -> Program:
        """See `MeasuringMethod.baseline`."""
        return Program("baseline", nn.Identity, (1, 1, 1))
