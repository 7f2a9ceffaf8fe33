"""`Slot`: one position of a supernet, and the layers that it can hold."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ofa.architecture.layer import LayerSpec, output_size
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class Slot:
    """One position of the supernet.

    Attributes:
        genes: columns of the genes that the layer depends on, by parameter of `build` and in the order of
            its parameters.
        build: takes the values of these genes and returns the layer; None if it does not exist.
    """

    genes: Mapping[str, int]
    build: Callable[..., LayerSpec | None]

    def __post_init__(self) -> None:
        """Check that the genes match the names and the order of `build`'s parameters."""
        parameters = tuple(inspect.signature(self.build).parameters)
        assert tuple(self.genes) == parameters[: len(self.genes)], (tuple(self.genes), parameters)

    def variants(self, space: StagedSpace) -> tuple[LayerSpec, ...]:
        """Return the distinct layers that this slot can hold in the (restricted) space."""
        choices = ([space.genes[g].choices[i] for i in space.allowed[g]] for g in self.genes.values())
        specs = (self.build(*values) for values in itertools.product(*choices))
        return tuple(dict.fromkeys(spec for spec in specs if spec is not None))


def gene_columns(space: StagedSpace, names: Mapping[str, str]) -> dict[str, int]:
    """Return the columns of the genes with the given names, by the same keys."""
    return {parameter: space.gene_index[name] for parameter, name in names.items()}


def size_after(resolution: int, strides: tuple[int, ...]) -> int:
    """Return the side of the feature map after layers of these strides, in pixels."""
    size = resolution
    for stride in strides:
        size = output_size(size, stride)
    return size
