"""Limits on any estimated quantity, and what is reachable under them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.cost import Estimator
from ofa.errors import UserError
from ofa.space import Genomes, SearchSpace
from ofa.threads import blas_threads

RANDOM_STARTS = 16
MAX_PASSES = 20


@dataclass(frozen=True)
class Limit:
    """An upper bound on one estimated quantity.

    Attributes:
        name: what is bounded, e.g. "latency_ms".
        estimator: gives the quantity per genome.
        maximum: the largest accepted value, in the estimator's unit; infinite where the quantity is only an
            objective (see `search.pareto_search`).
        unit: unit for texts and plots, e.g. "ms"; may be empty.
    """

    name: str
    estimator: Estimator
    maximum: float
    unit: str = ""

    def __post_init__(self) -> None:
        """Check that the limit has a name and that its maximum is positive."""
        if not self.name:
            raise UserError("A limit has no name; expected one such as latency_ms.")
        if not self.maximum > 0:
            raise UserError(f"Limit {self.name} is {self.maximum}; expected a positive number.")

    @property
    def bounded(self) -> bool:
        """Whether the maximum is finite."""
        return math.isfinite(self.maximum)

    @property
    def short(self) -> str:
        """The bound and its unit without spaces, for names of results; the quantity's name if unbounded."""
        text = f"{self.maximum:g}{self.unit.replace(' ', '')}" if self.bounded else self.name
        return text.replace(" ", "_")

    def show(self, value: float) -> str:
        """Return `value` with the limit's unit, rounded up to six digits: a limit of that text keeps it."""
        text = f"{value:.6g}"
        if value > 0 and float(text) < value:
            text = f"{value + 10.0 ** (math.floor(math.log10(value)) - 5):.6g}"
        return f"{text} {self.unit}".rstrip()


def check_limits(limits: Sequence[Limit]) -> None:
    """Check that there is a limit and that no two have one name.

    Raises:
        UserError: otherwise.
    """
    if not limits:
        raise UserError("A search needs at least one limit, e.g. limits.latency_ms=3.5.")
    twice = sorted(name for name, count in Counter(limit.name for limit in limits).items() if count > 1)
    if twice:
        raise UserError(f"More than one limit is named {', '.join(twice)}; expected distinct names.")


def check_bounded(limits: Sequence[Limit]) -> None:
    """Check that all limits are finite, for an algorithm that finds one network and not a front.

    Raises:
        UserError: otherwise.
    """
    if unbounded := [limit.name for limit in limits if not limit.bounded]:
        raise UserError(
            f"{', '.join(unbounded)} is infinite; expected a finite limit. For the whole front of accuracy "
            "against that quantity use search=pareto."
        )


def limit_values(limits: Sequence[Limit], genomes: Genomes) -> NDArray[np.float64]:
    """Return the limited quantities, shape (n, number of limits)."""
    return np.stack([limit.estimator(genomes) for limit in limits], axis=1)


def violations(limits: Sequence[Limit], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by which share of its maximum each value is too large (0: within), same shape as `values`."""
    maxima = np.array([limit.maximum for limit in limits])
    return np.asarray(np.maximum(values / maxima - 1.0, 0.0))


def within(limits: Sequence[Limit], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows of `values`, shape (n, number of limits), keep every limit; NaN keeps none."""
    return np.asarray((values <= np.array([limit.maximum for limit in limits])).all(axis=1))


def feasible(limits: Sequence[Limit], genomes: Genomes) -> NDArray[np.bool_]:
    """Return which genomes keep every limit, shape (n,)."""
    return within(limits, limit_values(limits, genomes))


@blas_threads(1)
def smallest_reachable(
    space: SearchSpace, estimator: Estimator, rng: np.random.Generator
) -> tuple[Genomes, float]:
    """Return a genome, shape (num_genes,), with the smallest value that descent finds, and that value.

    Coordinate descent from the space's smallest network and from `RANDOM_STARTS` random ones, all at once:
    each gene in turn is set to its best allowed choice until no single change helps, at most `MAX_PASSES`
    times. Where the quantity grows with each gene, as sums over layers do, this is the true minimum.
    """
    lowest = np.array([allowed[0] for allowed in space.allowed], np.int8)
    drawn = space.sample(RANDOM_STARTS, rng)
    # Genes of inactive blocks get an allowed choice, so that a change of depth alone stays in the space.
    current = np.concatenate([lowest[None], np.where(space.active(drawn), drawn, lowest)])
    rows = np.arange(len(current))
    values = estimator(space.canonical(current))
    for _ in range(MAX_PASSES):
        before = values
        for gene, allowed in enumerate(space.allowed):
            trials = np.repeat(current[None], len(allowed), axis=0)
            trials[:, :, gene] = np.array(allowed, np.int8)[:, None]
            flat = estimator(space.canonical(trials.reshape(-1, current.shape[1])))
            found = np.nan_to_num(flat, nan=np.inf).reshape(len(allowed), -1)
            picked = found.argmin(axis=0)
            current, values = trials[picked, rows], found[picked, rows]
        if not (values < before).any():
            break
    best = int(values.argmin())
    return space.canonical(current[best : best + 1])[0], float(values[best])


def reachable_genome(space: SearchSpace, limits: Sequence[Limit], rng: np.random.Generator) -> Genomes:
    """Return one genome, shape (num_genes,), that keeps all limits, found by descent on their violation.

    Raises:
        UserError: if none is found; naming each limit that is out of reach alone with the smallest reachable
            value, or, if each is within reach alone, the closest network and the smallest value of each.
    """

    def total_violation(genomes: Genomes, /) -> NDArray[np.float64]:
        return np.asarray(violations(limits, limit_values(limits, genomes)).sum(axis=1))

    genome, total = smallest_reachable(space, total_violation, rng)
    if total == 0.0 and feasible(limits, genome[None])[0]:
        return genome
    smallest = [smallest_reachable(space, limit.estimator, rng) for limit in limits]
    for found, _ in smallest:
        if feasible(limits, found[None])[0]:
            return found
    unreachable = [
        f"No sub-network of space {space.name!r} reaches {limit.name} = {limit.show(limit.maximum)}; "
        f"the smallest reachable value is {limit.show(value)}. Raise the limit to at least that."
        for limit, (_, value) in zip(limits, smallest, strict=True)
        if not value <= limit.maximum
    ]
    if unreachable:
        raise UserError("\n".join(unreachable))
    raise UserError(_jointly_unreachable(space, limits, genome, [value for _, value in smallest]))


def _jointly_unreachable(
    space: SearchSpace, limits: Sequence[Limit], closest: Genomes, smallest: Sequence[float]
) -> str:
    closest_values = limit_values(limits, closest[None])[0]
    each = "; ".join(
        f"{limit.name} = {limit.show(limit.maximum)} (smallest alone {limit.show(low)}, "
        f"closest network {limit.show(value)})"
        for limit, low, value in zip(limits, smallest, closest_values, strict=True)
    )
    return (
        f"No sub-network of space {space.name!r} was found that keeps all limits at once: {each}. "
        "Raise at least one of them."
    )
