"""`Slot`: one position of a supernet, and which layers it can hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ofa.architecture.layer import LayerSpec, output_size
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class Slot:
    """One position of the supernet.

    Attributes:
        genes: columns of the genes that the layer depends on.
        build: takes the values of these genes in order; None where the layer does not exist.
    """

    genes: tuple[int, ...]
    build: Callable[..., LayerSpec | None]

    def variants(self, space: StagedSpace) -> tuple[LayerSpec, ...]:
        """Return the distinct layers that this slot can hold in the (restricted) space."""
        choices = ([space.genes[g].choices[i] for i in space.allowed[g]] for g in self.genes)
        specs = (self.build(*values) for values in itertools.product(*choices))
        return tuple(dict.fromkeys(spec for spec in specs if spec is not None))


def size_after(resolution: int, strides: tuple[int, ...]) -> int:
    """Return the side of the feature map after layers of these strides, in pixels."""
    size = resolution
    for stride in strides:
        size = output_size(size, stride)
    return size
