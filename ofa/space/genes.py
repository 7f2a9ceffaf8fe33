"""Genes, and operations on whole populations of genomes that only need the genes.

A *genome* is an int8 row of choice indices, one per gene, canonical when the genes of inactive blocks
are 0. A population is one array of shape (n, num_genes).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Genomes = NDArray[np.int8]
GeneKey = tuple[str, int, int]
GENE_KINDS = ("resolution", "stem_depth", "width", "depth", "kernel_size", "expand_ratio")


@dataclass(frozen=True)
class Gene:
    """One elastic decision: its kind, where it acts, and its choices in ascending order.

    Attributes:
        kind: one of `GENE_KINDS`.
        choices: values in ascending order.
        stage: the stage it acts on; -1 for the input and the stem.
        block: the block it acts on, -1 for a whole stage; of the stem's widths 0 is the inner, 1 the outer.
    """

    kind: str
    choices: tuple[float, ...]
    stage: int = -1
    block: int = -1

    @property
    def key(self) -> GeneKey:
        """(kind, stage, block), unique within a space."""
        return self.kind, self.stage, self.block

    @property
    def place(self) -> str:
        """Where the gene acts, in words that follow its kind; empty for the resolution."""
        if self.stage < 0:
            return "" if self.block < 0 else f" of stem convolution {self.block}"
        return f" of stage {self.stage}" + ("" if self.block < 0 else f", block {self.block}")


class GenePool:
    """Draws, varies, counts and encodes genomes of given genes, of which some choices are allowed."""

    def __init__(
        self, genes: Sequence[Gene], allowed: Sequence[tuple[int, ...]], compound: bool = False
    ) -> None:
        """Take the genes and the choice indices that may be drawn of each.

        With `compound`, kernel sizes and expand ratios follow their stage's depth (Sahni et al. 2021): its
        smallest choice goes with their smallest ones, the largest with the largest, and what is between
        likewise; where that is not allowed, the nearest. Stages that have a single depth stay free.
        """
        self.genes, self.allowed, self._compound = tuple(genes), tuple(allowed), compound
        self.index: dict[GeneKey, int] = {gene.key: column for column, gene in enumerate(self.genes)}

    # -- which genes matter ------------------------------------------------------------------------

    @cached_property
    def _governors(self) -> tuple[int | None, ...]:
        """Per gene the column of the depth gene that decides whether its block exists; None: always."""
        return tuple(self.index.get(("depth", g.stage, -1)) if g.block >= 0 else None for g in self.genes)

    @cached_property
    def _activity(self) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Per gene: a column, and the smallest choice index in it with which the gene is active."""
        column = np.zeros(len(self.genes), np.intp)
        needed = np.zeros(len(self.genes), np.int64)
        for i, (gene, governor) in enumerate(zip(self.genes, self._governors, strict=True)):
            if governor is not None:
                column[i] = governor
                needed[i] = sum(depth <= gene.block for depth in self.genes[governor].choices)
        return column, needed

    def active(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return which genes matter, shape (n, num_genes): those of blocks inside their stage's depth."""
        column, needed = self._activity
        return np.asarray(genomes[:, column] >= needed)

    @cached_property
    def _followers(self) -> dict[int, NDArray[np.int8]]:
        """By column of the genes that follow a depth: their choice for each choice of that depth."""
        followers: dict[int, NDArray[np.int8]] = {}
        for column, governor in enumerate(self._governors):
            if not self._compound or governor is None or len(self.genes[governor].choices) == 1:
                continue
            share = np.linspace(0, 1, len(self.genes[governor].choices))
            wanted = np.rint(share * (len(self.genes[column].choices) - 1))
            allowed = np.array(self.allowed[column], np.int8)
            followers[column] = allowed[abs(allowed - wanted[:, None]).argmin(axis=1)]
        return followers

    def canonical(self, genomes: Genomes) -> Genomes:
        """Return the genomes with genes of inactive blocks set to 0; those that follow a depth do."""
        if self._followers:
            genomes = genomes.copy()
            for column, choices in self._followers.items():
                governor = self._governors[column]
                genomes[:, column] = choices[genomes[:, governor]]
        return np.where(self.active(genomes), genomes, np.int8(0)).astype(np.int8, copy=False)

    # -- drawing and varying -----------------------------------------------------------------------

    @cached_property
    def _allowed_table(self) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        counts = np.array([len(allowed) for allowed in self.allowed])
        table = np.zeros((len(self.genes), counts.max()), np.int8)
        for i, allowed in enumerate(self.allowed):
            table[i, : len(allowed)] = allowed
        return table, counts

    def _draw(self, count: int, rng: np.random.Generator) -> Genomes:
        table, counts = self._allowed_table
        picks = (rng.random((count, len(self.genes))) * counts).astype(np.intp)
        return np.asarray(table[np.arange(len(self.genes)), picks])

    def sample(self, count: int, rng: np.random.Generator) -> Genomes:
        """Return `count` random canonical genomes; each gene is drawn uniformly."""
        return self.canonical(self._draw(count, rng))

    def mutate(self, genomes: Genomes, rate: float, rng: np.random.Generator) -> Genomes:
        """Return children in which each gene is redrawn with probability `rate`.

        Genes of blocks that a deeper child activates are drawn afresh.
        """
        fresh = self._draw(len(genomes), rng)
        redrawn = (rng.random(genomes.shape) < rate) | ~self.active(genomes)
        return self.canonical(np.where(redrawn, fresh, genomes))

    def crossover(self, first: Genomes, second: Genomes, rng: np.random.Generator) -> Genomes:
        """Return children that take each gene from either parent row with equal chance.

        A gene that is inactive in one parent comes from the other.
        """
        from_first = rng.random(first.shape) < 0.5
        active_first, active_second = self.active(first), self.active(second)
        from_first = np.where(active_first == active_second, from_first, active_first)
        return self.canonical(np.where(from_first, first, second))

    # -- counting and enumerating ------------------------------------------------------------------

    def _parts(self) -> list[tuple[list[int], list[list[tuple[int, ...]]]]]:
        """Return the independent parts: columns, and the choices of each column, once for each depth."""
        parts = []
        for column in (i for i, governor in enumerate(self._governors) if governor is None):
            governed = [i for i, governor in enumerate(self._governors) if governor == column]
            rows = [
                [(choice,), *(self._open(i, choice) for i in governed)] for choice in self.allowed[column]
            ]
            parts.append(([column, *governed], rows))
        return parts

    def _open(self, column: int, depth: int) -> tuple[int, ...]:
        """Return the choices of a governed gene where its stage's depth has the choice `depth`."""
        if depth < self._activity[1][column]:
            return (0,)
        followed = self._followers.get(column)
        return self.allowed[column] if followed is None else (int(followed[depth]),)

    @property
    def size(self) -> int:
        """Number of distinct genomes with allowed choices."""
        return math.prod(sum(math.prod(map(len, options)) for options in rows) for _, rows in self._parts())

    def all_genomes(self) -> Genomes:
        """Return every canonical genome with allowed choices, shape (size, num_genes), in sorted order."""
        columns, tables = [], []
        for part, rows in self._parts():
            columns.append(part)
            tables.append(np.array([row for options in rows for row in itertools.product(*options)], np.int8))
        counts = [len(table) for table in tables]
        genomes = np.zeros((math.prod(counts), len(self.genes)), np.int8)
        places = np.unravel_index(np.arange(len(genomes)), counts)
        for part, table, rows_of_part in zip(columns, tables, places, strict=True):
            genomes[:, part] = table[rows_of_part]
        return genomes

    # -- features ----------------------------------------------------------------------------------

    @cached_property
    def _encoding(self) -> tuple[NDArray[np.intp], NDArray[np.int64], int]:
        """Columns that are encoded, the first feature of each, and the number of features."""
        columns = [i for i, gene in enumerate(self.genes) if gene.kind != "depth"]
        widths = [len(self.genes[i].choices) for i in columns]
        offsets = np.concatenate([[0], np.cumsum(widths)])
        return np.array(columns, np.intp), offsets[:-1], int(offsets[-1])

    @property
    def num_features(self) -> int:
        """Width of `encode`'s rows."""
        return self._encoding[2]

    def encode(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return one-hot features, shape (n, num_features), of all active genes but the stages' depths.

        Features of inactive blocks stay zero, so depth needs none of its own (Cai et al. 2020, sec. 3.4).
        """
        columns, offsets, width = self._encoding
        features = np.zeros((len(genomes), width), np.float32)
        rows, picked = np.nonzero(self.active(genomes)[:, columns])
        features[rows, offsets[picked] + genomes[rows, columns[picked]]] = 1.0
        return features


def unique_rows(genomes: Genomes) -> NDArray[np.intp]:
    """Return the indices of the first occurrence of each distinct row, in order."""
    keys = np.ascontiguousarray(genomes).view(np.dtype((np.void, genomes.shape[1]))).ravel()
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)
