"""`measure_sensitivity`: what a network loses when one group of its channels alone gets narrower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.graph.space import GraphSpace
from ofa.graph.structure import UNIT_KINDS
from ofa.space.plain import GeneConfig

Values = NDArray[np.float64]


@dataclass(frozen=True)
class GroupSensitivity:
    """Scores of a network in which one group alone is narrower.

    Attributes:
        name: name of the group.
        counts: numbers of its units, ascending; the last is that of the whole network.
        scores: score of the network with each of them; larger is better.
        kind: kind of its gene; see `Group.kind`.
    """

    name: str
    counts: tuple[int, ...]
    scores: tuple[float, ...]
    kind: str = "width"

    @property
    def gene(self) -> str:
        """Name of the gene that says how many units are kept."""
        return f"{self.kind}:{self.name}"

    @property
    def losses(self) -> tuple[float, ...]:
        """What is lost with each count: at least 0, and never less with fewer units."""
        lost = np.maximum(self.scores[-1] - np.array(self.scores), 0.0)
        return tuple(np.maximum.accumulate(lost[::-1])[::-1].tolist())

    def losses_at(self, counts: Sequence[float]) -> Values:
        """Return the losses with other counts, interpolated; shape (len(counts),)."""
        return np.interp(np.asarray(counts, np.float64), self.counts, self.losses)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"name": self.name, "counts": list(self.counts), "scores": list(self.scores)}


def measure_sensitivity(
    space: GraphSpace,
    score: Callable[[GeneConfig], float],
    *,
    num_points: int = 4,
    progress: ProgressCallback = silent,
) -> tuple[GroupSensitivity, ...]:
    """Return the sensitivity of every group that may get narrower (Li et al. 2017, sec. 3.2).

    Args:
        space: a restriction of a space; its largest network is the one that is made narrower.
        score: returns how good a sub-network is on validation data; larger is better.
        num_points: number of smaller counts of each group, spread evenly over those that are allowed.
        progress: called after each network.

    Raises:
        UserError: if `num_points` is below 1.
    """
    if num_points < 1:
        raise UserError(f"The points of a sensitivity analysis are {num_points}; expected at least 1.")
    largest = space.largest
    values = dict(largest.values)
    counts_of = {
        gene: _spread(space.allowed_values(gene.name), num_points)
        for gene in space.genes
        if gene.kind in UNIT_KINDS and gene.name in values and len(space.allowed_values(gene.name)) > 1
    }
    total, done = 1 + sum(map(len, counts_of.values())), 1
    full_score = score(largest)
    progress(done, total, "the whole network")
    result = []
    for gene, counts in counts_of.items():
        scores = []
        for count in counts:
            scores.append(score(space.config_of({**_all_values(space), gene.name: float(count)})))
            done += 1
            progress(done, total, f"{gene.part}: {count}")
        whole = int(values[gene.name])
        result.append(GroupSensitivity(gene.part, (*counts, whole), (*scores, full_score), gene.kind))
    return tuple(result)


def _all_values(space: GraphSpace) -> Mapping[str, float]:
    """Return the largest allowed value of every gene, inactive ones included."""
    return {gene.name: space.allowed_values(gene.name)[-1] for gene in space.genes}


def _spread(values: Sequence[float], num_points: int) -> tuple[int, ...]:
    """Return up to `num_points` of all values but the last, the smallest among them."""
    smaller = values[:-1]
    indices = np.unique(np.linspace(0, len(smaller) - 1, min(num_points, len(smaller))).round().astype(int))
    return tuple(int(smaller[index]) for index in indices)
