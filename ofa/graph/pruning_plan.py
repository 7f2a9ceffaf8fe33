"""`least_loss_plan`: the widths of a network that lose least within limits, by a greedy choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.graph.sensitivity import GroupSensitivity
from ofa.graph.space import GraphSpace
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.plain import GeneConfig

Values = NDArray[np.float64]

# Decides between changes that lose nothing: the one that saves more comes first.
_MIN_LOSS = 1e-6


def least_loss_plan(
    space: GraphSpace,
    sensitivity: Sequence[GroupSensitivity],
    limits: Mapping[str, float],
    costs: Mapping[str, Estimator],
) -> GeneConfig:
    """Return a network within limits whose groups lose little, if their losses add up.

    From the largest network on, the change of one group that loses least for what it saves is made, whatever
    its size, until all limits are kept. What is left of the budget then goes back to the groups, those that
    win most first. Costs are exact: they are products of linear forms of the counts.

    Args:
        space: a restriction of a space; its largest network is where the choice begins.
        sensitivity: the groups that may get narrower, and what they lose alone.
        limits: largest value of costs by name, which the smallest network of the space keeps.
        costs: cost of genomes by name.
    """
    plan = _Plan(space, sensitivity, limits, costs)
    genome = space.genome(space.largest)
    while plan.used_shares(genome[None])[0].max(initial=0.0) > 1:
        genome = plan.narrower(genome)
    while (wider := plan.wider(genome)) is not None:
        genome = wider
    return space.config(space.canonical(genome[None])[0])


@dataclass(frozen=True)
class _Plan:
    space: GraphSpace
    sensitivity: Sequence[GroupSensitivity]
    limits: Mapping[str, float]
    costs: Mapping[str, Estimator]

    def used_shares(self, genomes: Genomes) -> Values:
        """Return the costs as shares of the limits, shape (n, number of limits)."""
        rows = self.space.canonical(genomes)
        return np.stack([self.costs[name](rows) / limit for name, limit in self.limits.items()], axis=1)

    def narrower(self, genome: NDArray[np.int8]) -> NDArray[np.int8]:
        """Return the genome after the change that loses least for what it saves of the limits exceeded."""
        genomes, losses = self._changes(genome, is_narrower=True)
        before, after = self.used_shares(genome[None]), self.used_shares(genomes)
        # A saving beyond the limit is worth nothing.
        saved = (np.maximum(before, 1) - np.maximum(after, 1)).sum(axis=1)
        with np.errstate(divide="ignore"):
            prices = np.where(saved > 0, np.maximum(losses, _MIN_LOSS) / saved, np.inf)
        return np.asarray(genomes[np.argmin(prices)])

    def wider(self, genome: NDArray[np.int8]) -> NDArray[np.int8] | None:
        """Return the genome after the change that wins most and still fits; None if none does."""
        genomes, losses = self._changes(genome, is_narrower=False)
        if not len(genomes):
            return None
        shares = self.used_shares(genomes).max(axis=1)
        # Of changes that win equally, that which uses more.
        order = np.lexsort((-shares, losses))
        fitting = [index for index in order if shares[index] <= 1]
        return np.asarray(genomes[fitting[0]]) if fitting else None

    def _changes(self, genome: NDArray[np.int8], is_narrower: bool) -> tuple[Genomes, Values]:
        """Return the genomes that differ in the count of one group, and how much more each loses."""
        rows, losses = [], []
        for group in self.sensitivity:
            column = self.space.gene_index[group.gene]
            choices = self.space.genes[column].choices
            lost = group.losses_at(choices)
            for choice in self.space.allowed[column]:
                if choice < genome[column] if is_narrower else choice > genome[column]:
                    row = genome.copy()
                    row[column] = choice
                    rows.append(row)
                    losses.append(lost[choice] - lost[genome[column]])
        return np.array(rows, np.int8).reshape(-1, len(genome)), np.array(losses, np.float64)
