"""`Gene`, and operations on whole populations of genomes that only need the genes.

A *genome* is an int8 row of choice indices, one per gene, canonical when the genes that are switched off are
0. A population is one array of shape (n, num_genes).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError

Genomes = NDArray[np.int8]


@dataclass(frozen=True)
class Condition:
    """Condition under which a gene is active: another gene has one of these values."""

    gene: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Gene:
    """One elastic decision.

    Attributes:
        name: name of the gene, unique within its space.
        choices: values in ascending order.
        kind: type of decision, e.g. "width"; genes of one kind are restricted together.
        part: part of the network that the gene acts on; predictors treat genes of one part and kind alike.
        active_if: condition under which the gene is active; None: always. The gene it names is always active.
    """

    name: str
    choices: tuple[float, ...]
    kind: str = ""
    part: str = ""
    active_if: Condition | None = None


class GeneOperators(ABC):
    """Samples, mutates, counts and enumerates genomes within the allowed choices of their genes."""

    compound: bool

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """All genes, in the order of a genome's columns."""

    @property
    @abstractmethod
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """Allowed choice indices, per gene."""

    @cached_property
    def gene_index(self) -> dict[str, int]:
        """Column of each gene by its name."""
        return {gene.name: column for column, gene in enumerate(self.genes)}

    # -- which genes matter ------------------------------------------------------------------------

    @cached_property
    def governors(self) -> tuple[int | None, ...]:
        """Per gene the column of the gene that switches it on; None for genes that are always on.

        Raises:
            UserError: for a condition on an unknown gene, or on one that has a condition itself.
        """
        conditional = {gene.name for gene in self.genes if gene.active_if}
        for gene in self.genes:
            if gene.active_if and gene.active_if.gene not in set(self.gene_index) - conditional:
                raise UserError(
                    f"Gene {gene.name} is switched on by {gene.active_if.gene}; expected a gene of the space "
                    "that is always on."
                )
        return tuple(self.gene_index[gene.active_if.gene] if gene.active_if else None for gene in self.genes)

    @cached_property
    def _switches(self) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.int64] | None]:
        """Per gene the column of its governor, and which choices of the governor switch the gene on.

        The third array replaces the table where possible: the smallest such choice, if all larger choices
        switch the gene on, too.
        """
        column = np.zeros(len(self.genes), np.intp)
        table = np.ones((len(self.genes), max(len(gene.choices) for gene in self.genes)), np.bool_)
        for i, (gene, governor) in enumerate(zip(self.genes, self.governors, strict=True)):
            if governor is not None and gene.active_if is not None:
                column[i] = governor
                choices = self.genes[governor].choices
                table[i, : len(choices)] = [choice in gene.active_if.values for choice in choices]
        upward = bool((table[:, 1:] >= table[:, :-1]).all())
        return column, table, (~table).sum(axis=1) if upward else None

    def active(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return a mask of shape (n, num_genes): True where a gene is switched on."""
        column, table, smallest = self._switches
        if smallest is not None:
            return np.asarray(genomes[:, column] >= smallest)
        return np.asarray(table[np.arange(len(column)), genomes[:, column]])

    @cached_property
    def _compound_choices(self) -> dict[int, NDArray[np.int8]]:
        """By column, the choice of a compound gene for each choice of its governor; empty unless `compound`.

        Conditional genes follow their governor (Sahni et al. 2021): its smallest choice goes with their
        smallest, its largest with their largest, and those between in proportion; the nearest allowed choice
        replaces one that is not allowed. Genes whose governor has a single choice stay free.
        """
        compound_choices: dict[int, NDArray[np.int8]] = {}
        for column, governor in enumerate(self.governors):
            if not self.compound or governor is None or len(self.genes[governor].choices) == 1:
                continue
            share = np.linspace(0, 1, len(self.genes[governor].choices))
            target = np.rint(share * (len(self.genes[column].choices) - 1))
            allowed = np.array(self.allowed[column], np.int8)
            compound_choices[column] = allowed[abs(allowed - target[:, None]).argmin(axis=1)]
        return compound_choices

    def canonical(self, genomes: Genomes) -> Genomes:
        """Return the genomes with inactive genes set to 0 and compound genes set from their governors."""
        if self._compound_choices:
            genomes = genomes.copy()
            for column, choices in self._compound_choices.items():
                governor = self.governors[column]
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

        Genes that the child switches on are drawn afresh.
        """
        fresh = self._draw(len(genomes), rng)
        redrawn = (rng.random(genomes.shape) < rate) | ~self.active(genomes)
        return self.canonical(np.where(redrawn, fresh, genomes))

    # -- counting and enumerating ------------------------------------------------------------------

    def _independent_parts(self) -> list[tuple[list[int], list[list[tuple[int, ...]]]]]:
        """Return independent parts: their columns, and the choices of each per choice of the first."""
        parts = []
        for column in (i for i, governor in enumerate(self.governors) if governor is None):
            governed = [i for i, governor in enumerate(self.governors) if governor == column]
            rows = [
                [(choice,), *(self._open_choices(i, choice) for i in governed)]
                for choice in self.allowed[column]
            ]
            parts.append(([column, *governed], rows))
        return parts

    def _open_choices(self, column: int, governing_choice: int) -> tuple[int, ...]:
        """Return the choices of a conditional gene when its governor has the given choice."""
        if not self._switches[1][column, governing_choice]:
            return (0,)
        followed = self._compound_choices.get(column)
        return self.allowed[column] if followed is None else (int(followed[governing_choice]),)

    @property
    def size(self) -> int:
        """Number of distinct allowed genomes."""
        parts = self._independent_parts()
        return math.prod(sum(math.prod(map(len, options)) for options in rows) for _, rows in parts)

    def all_genomes(self) -> Genomes:
        """Return every allowed canonical genome, shape (size, num_genes), in sorted order."""
        columns, tables = [], []
        for part, rows in self._independent_parts():
            columns.append(part)
            tables.append(np.array([row for options in rows for row in itertools.product(*options)], np.int8))
        counts = [len(table) for table in tables]
        genomes = np.zeros((math.prod(counts), len(self.genes)), np.int8)
        positions = np.unravel_index(np.arange(len(genomes)), counts)
        for part, table, rows_of_part in zip(columns, tables, positions, strict=True):
            genomes[:, part] = table[rows_of_part]
        return genomes


def unique_rows(genomes: Genomes) -> NDArray[np.intp]:
    """Return the indices of the first occurrence of each distinct row, in order."""
    keys = np.ascontiguousarray(genomes).view(np.dtype((np.void, genomes.shape[1]))).ravel()
    _, first_indices = np.unique(keys, return_index=True)
    return np.sort(first_indices)
