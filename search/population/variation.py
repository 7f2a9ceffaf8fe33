"""Variation of whole populations: sampling, crossover, mutation and shrinking of rows of genes.

Rows here are *full*: the genes of inactive blocks keep their last choice instead of 0. A block that a deeper
child switches on thus has choices of its ancestors, and no operator depends on which genes are active.
`SearchSpace.canonical` converts a full row to its network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace

SHRINK_SHARE = 0.15


class Variation:
    """Operators on full rows, shape (n, num_genes), that stay within a (restricted) space.

    Attributes:
        counts: number of allowed choices per gene.
        free: columns of the genes with more than one allowed choice.
        lowest: the smallest allowed choice of each gene.
        highest: the largest allowed choice of each gene.
    """

    def __init__(self, space: SearchSpace) -> None:
        """Compile the allowed choices into arrays."""
        self.counts = np.array([len(allowed) for allowed in space.allowed])
        self.free = np.flatnonzero(self.counts > 1)
        self.lowest = np.array([allowed[0] for allowed in space.allowed], np.int8)
        self.highest = np.array([allowed[-1] for allowed in space.allowed], np.int8)
        widest = max(len(gene.choices) for gene in space.genes)
        self._choices = np.zeros((len(self.counts), self.counts.max()), np.int8)
        self._positions = np.zeros((len(self.counts), widest), np.intp)
        for gene, allowed in enumerate(space.allowed):
            self._choices[gene, : len(allowed)] = allowed
            self._positions[gene, list(allowed)] = range(len(allowed))

    def draw(self, count: int, rng: np.random.Generator) -> Genomes:
        """Return `count` rows; each gene is drawn uniformly."""
        choice_indices = (rng.random((count, len(self.counts))) * self.counts).astype(np.intp)
        return np.asarray(self._choices[np.arange(len(self.counts)), choice_indices])

    def cross(self, parents: Genomes, mates: Genomes, rng: np.random.Generator) -> Genomes:
        """Return children that take each gene from either parent row with equal chance."""
        count, width = parents.shape
        random_bytes = rng.integers(0, 256, (count, (width + 7) // 8), dtype=np.uint8)
        from_parents = np.unpackbits(random_bytes, axis=1, count=width).view(np.bool_)
        return np.where(from_parents, parents, mates)

    def change(self, genomes: Genomes, max_genes: int, rng: np.random.Generator) -> Genomes:
        """Return children with 1 to `max_genes` changed genes (fewer if a gene is drawn twice)."""
        children = genomes.copy()
        if len(self.free) == 0:
            return children
        changes = rng.integers(1, max_genes + 1, len(children))
        for num_changed in range(max_genes):
            rows = np.flatnonzero(changes > num_changed)
            genes = self.free[rng.integers(len(self.free), size=len(rows))]
            steps = 1 + rng.integers(0, self.counts[genes] - 1)
            positions = (self._positions[genes, children[rows, genes]] + steps) % self.counts[genes]
            children[rows, genes] = self._choices[genes, positions]
        return children

    def offspring(
        self,
        parents: Genomes,
        mates: Genomes,
        mutation_ratio: float,
        max_genes: int,
        rng: np.random.Generator,
    ) -> Genomes:
        """Return a child per pair of parent rows.

        Args:
            parents: first parents, shape (n, num_genes).
            mates: second parents, same shape; not used by mutations.
            mutation_ratio: share of children that are mutations of their first parent; the others come
                from crossover.
            max_genes: largest number of genes that a mutation changes.
            rng: source of all randomness.
        """
        mutants = round(mutation_ratio * len(parents))
        mutated = self.change(parents[:mutants], max_genes, rng)
        return np.concatenate([mutated, self.cross(parents[mutants:], mates[mutants:], rng)])

    def shrink(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        """Return rows in which each gene is set to its smallest choice with probability `SHRINK_SHARE`."""
        lowered: NDArray[np.bool_] = rng.random(genomes.shape) < SHRINK_SHARE
        return np.where(lowered, self.lowest, genomes)
