"""`PieceSum`: sums of measured pieces of a user's network for whole populations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace

Values = NDArray[np.float64]

_SIDES = ("resolution", "kernel_size")
"""Kinds of genes whose values are sides of squares: costs grow with the area."""


@dataclass(frozen=True)
class PieceAxis:
    """A size of a piece that was measured at some points.

    Attributes:
        genes: genes that determine the size; several only grow together.
        points: values of these genes at each point, ascending.
    """

    genes: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Check that there is a value for each gene at each point."""
        if not self.genes or not self.points or any(len(p) != len(self.genes) for p in self.points):
            raise UserError(
                f"An axis of the genes {', '.join(self.genes)} has the points {self.points}; "
                "expected a value for each gene at each point."
            )


@dataclass(frozen=True)
class PieceTerm:
    """A place in the network that one piece fills, at all of its sizes.

    Attributes:
        axes: the sizes that vary.
        keys: keys of the entries at all combinations of the points, the last axis running fastest.
        depth_gene: gene that leaves the place out; empty for a place that every sub-network has.
        block_index: the place is there if the value of `depth_gene` is larger.
    """

    axes: tuple[PieceAxis, ...]
    keys: tuple[str, ...]
    depth_gene: str = ""
    block_index: int = 0

    def __post_init__(self) -> None:
        """Check that there is a key for each combination."""
        num_combinations = math.prod(len(axis.points) for axis in self.axes)
        if len(self.keys) != num_combinations:
            raise UserError(f"A piece has {len(self.keys)} keys; expected {num_combinations}, by its axes.")

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of all genes that it depends on."""
        names = [gene for axis in self.axes for gene in axis.genes]
        return (*names, self.depth_gene) if self.depth_gene else tuple(names)


class PieceSum:
    """Estimator of the sum of the entries of a network's pieces, multilinear between measured sizes."""

    def __init__(
        self,
        space: SearchSpace,
        terms: Sequence[PieceTerm],
        latencies_ms: Mapping[str, float],
        choices: Mapping[str, Sequence[float]],
    ) -> None:
        """Prepare the sums.

        Args:
            space: space of the genomes; its restriction has no effect.
            terms: the places of the network.
            latencies_ms: latency of each entry by key, in milliseconds.
            choices: choices of each gene that the entries span; networks with others get NaN.
        """
        self._terms = [_CompiledTerm(space, term, latencies_ms) for term in terms]
        covered = {gene.name: np.isin(gene.choices, choices[gene.name]) for gene in space.genes}
        self._limited = {
            space.gene_index[name]: is_covered for name, is_covered in covered.items() if not all(is_covered)
        }

    def __call__(self, genomes: Genomes, /) -> Values:
        """Return the sums in milliseconds, shape (n,), for genomes of shape (n, num_genes)."""
        total = np.zeros(len(genomes))
        for term in self._terms:
            total += term.values(genomes)
        for column, is_covered in self._limited.items():
            total[~is_covered[genomes[:, column]]] = np.nan
        return total


class _CompiledTerm:
    """One term with arrays in place of names."""

    def __init__(self, space: SearchSpace, term: PieceTerm, latencies_ms: Mapping[str, float]) -> None:
        self._axes = [_CompiledAxis(space, axis) for axis in term.axes]
        shape = [len(axis.points) for axis in term.axes]
        self._grid = np.array([latencies_ms[key] for key in term.keys], float).reshape(shape)
        self._presence: tuple[int, NDArray[np.bool_]] | None = None
        if term.depth_gene:
            column = space.gene_index[term.depth_gene]
            self._presence = column, np.array(space.genes[column].choices) > term.block_index

    def values(self, genomes: Genomes) -> Values:
        """Return the value of each network, shape (n,); 0 where the place is left out."""
        if self._presence is None:
            return self._interpolated(genomes)
        column, is_there = self._presence
        result = np.zeros(len(genomes))
        rows = np.flatnonzero(is_there[genomes[:, column]])
        result[rows] = self._interpolated(genomes[rows])
        return result

    def _interpolated(self, genomes: Genomes) -> Values:
        places = [axis.places(genomes) for axis in self._axes]
        result = np.zeros(len(genomes))
        for corner in itertools.product((0, 1), repeat=len(places)):
            weight = np.ones(len(genomes))
            indices = []
            for (low, high, share), is_high in zip(places, corner, strict=True):
                weight = weight * (share if is_high else 1 - share)
                indices.append(high if is_high else low)
            result += weight * self._grid[tuple(indices)]
        return result


class _CompiledAxis:
    """One axis: the coordinate of each choice of its genes, and the coordinates of the points."""

    def __init__(self, space: SearchSpace, axis: PieceAxis) -> None:
        genes = [space.genes[space.gene_index[name]] for name in axis.genes]
        self._columns = [space.gene_index[gene.name] for gene in genes]
        powers = [2 if gene.kind in _SIDES else 1 for gene in genes]
        self._choices = [np.array(g.choices, float) ** power for g, power in zip(genes, powers, strict=True)]
        self._points = np.array(
            [sum(value**power for value, power in zip(point, powers, strict=True)) for point in axis.points]
        )

    def places(self, genomes: Genomes) -> tuple[NDArray[np.intp], NDArray[np.intp], Values]:
        """Return the points below and above each network, and how far it is between them, from 0 to 1."""
        position = np.zeros(len(genomes))
        for column, choices in zip(self._columns, self._choices, strict=True):
            position += choices[genomes[:, column]]
        points = self._points
        if len(points) == 1:
            zeros = np.zeros(len(genomes), np.intp)
            return zeros, zeros, np.zeros(len(genomes))
        high = np.clip(np.searchsorted(points, position), 1, len(points) - 1)
        share = (position - points[high - 1]) / (points[high] - points[high - 1])
        return high - 1, high, np.clip(share, 0, 1)
