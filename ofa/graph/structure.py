"""`GraphStructure`: what may vary in a user's network, as plain values; nothing is traced to read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofa.graph.costs import CostForms

Indices = NDArray[np.int64]
Key = tuple[str, int]
"""An axis of a parameter or buffer: its name and the number of the axis."""


UNIT_KINDS = ("width", "rank")
"""Kinds of the genes that say how many units of a group are kept; see `Group.kind`."""


@dataclass(frozen=True)
class UnitAxis:
    """The indices of all units in one axis, unit by unit.

    Attributes:
        tensor: name of the parameter or buffer.
        axis: number of the axis.
        runs: pairs (first index, number of consecutive indices); together equally many for each unit.
        is_read: whether a layer reads the units along this axis of its weight.
    """

    tensor: str
    axis: int
    runs: tuple[tuple[int, int], ...]
    is_read: bool = False


@dataclass(frozen=True)
class Group:
    """Units that touch the same axes in the same way, so that any of them may go.

    A unit is what must go together: one output channel of a layer with the columns of its consumers, a head
    of attention, a group of a grouped convolution.

    Attributes:
        name: the module, or raw parameter, that makes the units first.
        num_units: number of units.
        unit_size: channels of a unit: the fewest indices that it has in the weight of a wide layer.
        touched: the axes that the units touch.
        kind: kind of its gene: "width", or "rank" for the channels between the two parts of a split
            convolution, which stay in the order of their singular values.
        layer: the split convolution that makes the units, of which module `name` is a part; empty for others.
    """

    name: str
    num_units: int
    unit_size: int
    touched: tuple[UnitAxis, ...]
    kind: str = "width"
    layer: str = ""

    @property
    def part(self) -> str:
        """The module of the user's network, or raw parameter, that makes the units first."""
        return self.layer or self.name

    @property
    def gene(self) -> str:
        """Name of the gene that says how many units are kept."""
        return f"{self.kind}:{self.part}"

    @cached_property
    def axes(self) -> Mapping[Key, Indices]:
        """Indices of each unit in each axis that it touches, shape (num_units, indices per unit)."""
        return {
            (part.tensor, part.axis): np.concatenate(
                [np.arange(start, start + length) for start, length in part.runs]
            ).reshape(self.num_units, -1)
            for part in self.touched
        }


def group_of(
    name: str, unit_size: int, axes: Mapping[Key, Indices], read_axes: Collection[Key] = ()
) -> Group:
    """Return a group from its indices, shape (num_units, indices per unit), by axis."""
    touched = tuple(UnitAxis(*key, _runs(indices.ravel()), key in read_axes) for key, indices in axes.items())
    return Group(name, len(next(iter(axes.values()))), unit_size, touched)


def _runs(indices: Indices) -> tuple[tuple[int, int], ...]:
    starts = np.flatnonzero(np.diff(indices, prepend=indices[0] - 2) != 1)
    lengths = np.diff(starts, append=len(indices))
    return tuple(zip(indices[starts].tolist(), lengths.tolist(), strict=True))


@dataclass(frozen=True)
class ElasticKernel:
    """A convolution whose kernel may shrink to its centre.

    Attributes:
        name: name of the module.
        weight: name of its weight.
        side: side of the full kernel in pixels.
    """

    name: str
    weight: str
    side: int


@dataclass(frozen=True)
class Chain:
    """Consecutive residual blocks, of which a sub-network keeps the first ones.

    Attributes:
        name: name of the module that holds them, or of the first block.
        blocks: names of the modules.
    """

    name: str
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class SplitLayer:
    """A convolution of the user's network that stands as a vertical and a horizontal one.

    Attributes:
        name: name of the convolution.
        rank: largest number of channels between the two.
    """

    name: str
    rank: int


@dataclass(frozen=True)
class GraphStructure:
    """What may vary in a user's network.

    Attributes:
        groups: groups of units.
        kernels: convolutions with an elastic kernel.
        chains: chains of residual blocks.
        bound_groups: names of the groups of which only the graph can compute fewer units.
        copied_tensors: parameters that other operators than layers read; slices of them are copied, so that
            sums run in the order of an extracted network.
        costs: costs of the sub-networks.
        splits: convolutions that were split before the network was converted.
    """

    groups: tuple[Group, ...]
    kernels: tuple[ElasticKernel, ...] = ()
    chains: tuple[Chain, ...] = ()
    bound_groups: tuple[str, ...] = ()
    copied_tensors: tuple[str, ...] = ()
    costs: CostForms = field(default_factory=CostForms)
    splits: tuple[SplitLayer, ...] = ()

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        """Names of all blocks that may be left out."""
        return tuple(block for chain in self.chains for block in chain.blocks)
