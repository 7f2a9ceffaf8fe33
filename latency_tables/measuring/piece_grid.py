"""`piece_grid`: which pieces of a user's network are measured, and at which sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency_tables.table.piece_sum import PieceAxis, PieceTerm
from ofa.graph.pieces import Piece, find_pieces
from ofa.graph.programs import GraphProgram
from ofa.graph.space import GraphSpace
from ofa.graph.tracing import GraphTracer
from ofa.space.plain import GeneConfig

MAX_PROGRAMS = 600
"""Programs up to which all sizes are measured, or those between which is interpolated."""

_MAX_AXES = 3
"""Genes of a piece that vary alone; further ones grow together."""

GeneValues = Mapping[str, float]


@dataclass(frozen=True)
class PieceGrid:
    """The pieces of a table.

    Attributes:
        terms: the places of the network, with keys of programs.
        programs: the programs to measure by key.
    """

    terms: tuple[PieceTerm, ...]
    programs: Mapping[str, GraphProgram]


def piece_grid(tracer: GraphTracer, space: GraphSpace, max_programs: int = MAX_PROGRAMS) -> PieceGrid:
    """Return the pieces of a network and the sizes at which they are measured.

    All combinations of the choices are measured if these are at most about `max_programs` programs, else only
    some choices of each gene, at least two: the smallest, the largest, and some between them. Neighbouring
    pieces are measured as one where this takes no more programs than apart.

    Args:
        tracer: runs the graph of the network without data.
        space: the (restricted) space of the network.
        max_programs: the number of programs to aim at.

    Raises:
        UserError: if the graph does not run at one of the resolutions.
    """
    return _Planner(tracer, space).grid(max_programs)


@dataclass(frozen=True)
class _Place:
    """A piece, the genes that its sizes depend on, and its program in the largest network."""

    piece: Piece
    genes: tuple[str, ...]
    key: str


class _Planner:
    """Finds pieces, what they depend on, and their programs."""

    def __init__(self, tracer: GraphTracer, space: GraphSpace) -> None:
        self._tracer, self._space = tracer, space
        allowed = zip(space.genes, space.allowed, strict=True)
        self._choices = {gene.name: [gene.choices[i] for i in indices] for gene, indices in allowed}
        self._kinds = {gene.name: gene.kind for gene in space.genes}
        self._largest = {name: choices[-1] for name, choices in self._choices.items()}
        # Every block is there in the network whose pieces are cut.
        self._largest |= {gene.name: gene.choices[-1] for gene in space.genes if gene.kind == "depth"}
        self._depths = {
            block: (f"depth:{chain.name}", index)
            for chain in space.structure.chains
            for index, block in enumerate(chain.blocks)
        }

    def grid(self, max_programs: int) -> PieceGrid:
        places = self._places()
        num_points = max(len(choices) for choices in self._choices.values())
        while True:
            joined = self._joined(places, num_points)
            if num_points <= 2 or self._num_programs(joined, num_points) <= max_programs:
                break
            num_points -= 1
        return self._measured([place for place in joined if not place.piece.is_free], num_points)

    # -- pieces and their genes ----------------------------------------------------------------------

    def _config(self, values: GeneValues) -> GeneConfig:
        return self._space.config_of({**self._largest, **values})

    def _places(self) -> list[_Place]:
        """Return all pieces with the genes that change them, found by making each gene small alone."""
        tracer = self._tracer
        values = tracer.values(self._config({}))
        pieces = find_pieces(tracer.graph, values)
        keys = [piece.program(tracer, values).key for piece in pieces]
        genes: list[list[str]] = [[] for _ in pieces]
        for name, choices in self._choices.items():
            if self._kinds[name] == "depth" or len(choices) < 2:
                continue
            values = tracer.values(self._config({name: choices[0]}))
            for index, piece in enumerate(pieces):
                if piece.program(tracer, values).key != keys[index]:
                    genes[index].append(name)
        return [_Place(*place) for place in zip(pieces, map(tuple, genes), keys, strict=True)]

    def _joined(self, places: Sequence[_Place], num_points: int) -> list[_Place]:
        """Return the pieces with neighbours joined where this takes no more programs."""
        result: list[_Place] = []
        for place in places:
            if result and result[-1].piece.block == place.piece.block and place.piece.reads(result[-1].piece):
                before = result[-1]
                genes = tuple(name for name in self._choices if name in {*before.genes, *place.genes})
                both = _Place(before.piece.joined(place.piece), genes, f"{before.key} {place.key}")
                apart = self._size(before, num_points) + self._size(place, num_points)
                if len(genes) <= _MAX_AXES and self._size(both, num_points) <= apart:
                    result[-1] = both
                    continue
            result.append(place)
        return result

    def _size(self, place: _Place, num_points: int) -> int:
        return math.prod(len(axis.points) for axis in self._axes(place.genes, num_points))

    def _num_programs(self, places: Sequence[_Place], num_points: int) -> int:
        """Return the number of programs; pieces that are equal in the largest network count once."""
        sizes: dict[tuple[object, ...], int] = {}
        for place in places:
            axes = self._axes(place.genes, num_points)
            kinds = tuple(tuple(axis.points) for axis in axes)
            if not place.piece.is_free:
                sizes[place.key, kinds] = math.prod(len(axis.points) for axis in axes)
        return sum(sizes.values())

    # -- sizes ---------------------------------------------------------------------------------------

    def _axes(self, genes: Sequence[str], num_points: int) -> tuple[PieceAxis, ...]:
        """Return an axis for each gene; of many genes the first ones, the widths before, share one."""
        num_shared = len(genes) - _MAX_AXES + 1 if len(genes) > _MAX_AXES else 0
        groups = [tuple(genes[:num_shared])] * bool(num_shared) + [(name,) for name in genes[num_shared:]]
        return tuple(PieceAxis(group, self._points(group, num_points)) for group in groups)

    def _points(self, genes: Sequence[str], num_points: int) -> tuple[tuple[float, ...], ...]:
        count = min(num_points, max(len(self._choices[name]) for name in genes))
        columns = []
        for name in genes:
            choices = self._choices[name]
            indices = np.linspace(0, len(choices) - 1, count).round().astype(int)
            columns.append([choices[index] for index in indices])
        return tuple(zip(*columns, strict=True))

    # -- programs ------------------------------------------------------------------------------------

    def _measured(self, places: Sequence[_Place], num_points: int) -> PieceGrid:
        """Return the terms of all places, and the programs at their points."""
        axes = [self._axes(place.genes, num_points) for place in places]
        pending = [list(itertools.product(*(axis.points for axis in its_axes))) for its_axes in axes]
        combinations = [tuple(points) for points in pending]
        programs: list[dict[object, GraphProgram]] = [{} for _ in places]
        while any(pending):
            chosen: dict[str, float] = {}
            picks = []
            for index, its_axes in enumerate(axes):  # As many as possible in one network.
                for combination in pending[index]:
                    pairs = zip(its_axes, combination, strict=True)
                    values = {g: v for a, point in pairs for g, v in zip(a.genes, point, strict=True)}
                    if all(chosen.get(name, value) == value for name, value in values.items()):
                        chosen |= values
                        picks.append((index, combination))
                        pending[index].remove(combination)
                        break
            traced = self._tracer.values(self._config(chosen))
            for index, combination in picks:
                programs[index][combination] = places[index].piece.program(self._tracer, traced)
        terms = []
        for index, place in enumerate(places):
            keys = tuple(programs[index][combination].key for combination in combinations[index])
            depth_gene, block_index = self._depths.get(place.piece.block, ("", 0))
            depth_gene = depth_gene if depth_gene in self._space.gene_index else ""
            terms.append(PieceTerm(axes[index], keys, depth_gene, block_index if depth_gene else 0))
        return PieceGrid(tuple(terms), {p.key: p for group in programs for p in group.values()})
