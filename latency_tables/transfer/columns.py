"""`Columns`: what the latency of a network is composed of, as numbers for networks and for their layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from latency_tables.table.amounts import AMOUNTS, MILLION, amounts_of
from latency_tables.table.regression import Values
from latency_tables.transfer.sources import NO_SOURCES, Sources
from ofa.architecture.cost import compile_cost, macs
from ofa.architecture.layer import LayerSpec
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace

LayerValue = Callable[[LayerSpec, int], float]
"""Number of a layer in networks of a resolution in pixels."""


@dataclass(frozen=True)
class Columns:
    """Numbers of networks that add up over layers: entries of other tables, and amounts of work.

    The first ones are the sums of the tables' entries in milliseconds or, without a table, the
    multiply-accumulates. The others are `AMOUNTS`, in millions.

    Attributes:
        space: the (restricted) space.
        sources: tables that cover it.
    """

    space: StagedSpace
    sources: Sources = NO_SOURCES

    @property
    def num_free(self) -> int:
        """Number of first columns, which are not penalised."""
        return max(len(self.sources.tables), 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column."""
        tables = [f"table {record}" for record in self.sources.records]
        return (*(tables or ["macs"]), *AMOUNTS)

    def matrix(self, genomes: Genomes) -> Values:
        """Return the columns of networks, shape (n, num_columns), for genomes of shape (n, num_genes)."""
        tables = [table.total(self.space)(genomes) for table in self.sources.tables]
        free = tables or [compile_cost(self.space, macs)(genomes) / MILLION]
        return np.column_stack([*free, amounts_of(self.space, genomes)])

    def of_layer(self, spec: LayerSpec, resolution: int) -> Values:
        """Return the columns of a layer, shape (num_columns,); NaN where a table lacks it."""
        tables = [table.layer_ms(spec, resolution) for table in self.sources.tables]
        amounts = [amount(spec) / MILLION for amount in AMOUNTS.values()]
        return np.array([*(tables or [macs(spec) / MILLION]), *amounts], np.float64)


def columns_of(space: StagedSpace, sources: Sources) -> Columns:
    """Return the columns of the networks of `space` at the resolutions that all sources cover.

    The table of a compound space covers all networks with its choices.

    Raises:
        UserError: raised by `Sources.covered_space`.
    """
    return Columns(sources.covered_space(replace(space, compound=False)), sources)
