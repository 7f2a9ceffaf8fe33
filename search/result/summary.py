"""Conversion of a search's candidates to its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import Limit
from search.population.archive import Archive
from search.population.fronts import fittest, non_dominated
from search.result.result import Candidate, LimitRecord, SearchResult

MAX_SAMPLES = 500


def summarise(
    space: SearchSpace,
    archive: Archive,
    limits: Sequence[Limit],
    algorithm: str,
    settings: Any,
    num_ranked: int,
    history: Sequence[float],
    seconds: float,
    front_costs: int = 1,
    front_size: int | None = None,
) -> SearchResult:
    """Return the result of a search whose candidates are in `archive`; at least one is feasible.

    The front is that of accuracy against the first `front_costs` limited quantities, reduced to the
    `front_size` least crowded members.
    """
    genomes, values, accuracies = archive.feasible()
    costs = values[:, 0]
    ranked = np.lexsort((costs, -accuracies))[:num_ranked]
    front = non_dominated(values[:, :front_costs], accuracies)
    if front_size is not None and len(front) > front_size:
        losses = np.column_stack([values[front, :front_costs], -accuracies[front]])
        front = front[np.sort(fittest(losses, front_size))]
    spaced = np.linspace(0, len(genomes) - 1, min(len(genomes), MAX_SAMPLES)).astype(np.intp)

    def candidates(indices: NDArray[np.intp]) -> tuple[Candidate, ...]:
        return tuple(_candidate(space, limits, genomes[i], values[i], accuracies[i]) for i in indices)

    return SearchResult(
        algorithm=algorithm,
        settings=dataclasses.asdict(settings),
        seed=None,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        limits=tuple(limit_record(limit) for limit in limits),
        front_costs=tuple(limit.name for limit in limits[:front_costs]),
        ranked=candidates(ranked),
        front=candidates(front),
        samples=tuple(zip(costs[spaced].tolist(), accuracies[spaced].tolist(), strict=True)),
        evaluations=archive.num_considered,
        accuracy_evaluations=archive.num_estimated,
        history=tuple(history),
        seconds=seconds,
    )


def limit_record(limit: Limit) -> LimitRecord:
    """Return the record of a limit in results."""
    maximum = limit.maximum if limit.bounded else None
    return LimitRecord(limit.name, maximum, limit.unit, limit.kind, limit.target)


def _candidate(
    space: SearchSpace,
    limits: Sequence[Limit],
    genome: Genomes,
    values: NDArray[np.float64],
    accuracy: float,
) -> Candidate:
    values_by_name = {limit.name: float(value) for limit, value in zip(limits, values, strict=True)}
    return Candidate(space.config(genome), float(accuracy), values_by_name)
