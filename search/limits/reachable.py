"""The reachable values of a space, limits that do not bind, and a first network inside the limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.common.threads import blas_threads
from ofa.space.estimator import Affine, Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import Limit, feasible, limit_values, rounded_up, violations

RANDOM_STARTS = 16
MAX_PASSES = 20
_EXAMPLE_SHARE = 0.35
"""Where an example of a limit lies between the smallest and the largest value."""


@blas_threads(1)
def smallest_reachable(
    space: SearchSpace, estimator: Estimator, rng: np.random.Generator
) -> tuple[Genomes, float]:
    """Return a genome, shape (num_genes,), with the smallest value found by descent, and that value.

    Coordinate descent from the smallest network of the space and from `RANDOM_STARTS` random ones in
    parallel: each gene in turn is set to its best allowed choice until no single change helps, at most
    `MAX_PASSES` times. If the quantity grows with each gene, like sums over layers, this is the true minimum.
    """
    lowest = np.array([allowed[0] for allowed in space.allowed], np.int8)
    samples = space.sample(RANDOM_STARTS, rng)
    # Inactive genes get an allowed choice, so a change of depth alone stays in the space.
    genomes = np.concatenate([lowest[None], np.where(space.active(samples), samples, lowest)])
    rows = np.arange(len(genomes))
    values = estimator(space.canonical(genomes))
    for _ in range(MAX_PASSES):
        previous_values = values
        for gene, allowed in enumerate(space.allowed):
            trials = np.repeat(genomes[None], len(allowed), axis=0)
            trials[:, :, gene] = np.array(allowed, np.int8)[:, None]
            flat = estimator(space.canonical(trials.reshape(-1, genomes.shape[1])))
            trial_values = np.nan_to_num(flat, nan=np.inf).reshape(len(allowed), -1)
            choice_indices = trial_values.argmin(axis=0)
            genomes, values = trials[choice_indices, rows], trial_values[choice_indices, rows]
        if not (values < previous_values).any():
            break
    best_index = int(values.argmin())
    return space.canonical(genomes[best_index : best_index + 1])[0], float(values[best_index])


def reachable_range(
    space: SearchSpace, estimator: Estimator, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the smallest and the largest value of a quantity in the space, as `smallest_reachable` does."""
    _, low = smallest_reachable(space, estimator, rng)
    _, negative_high = smallest_reachable(space, Affine(estimator, -1.0), rng)
    return low, -negative_high


def example_maximum(space: SearchSpace, estimator: Estimator, seed: int = 0) -> tuple[str, str]:
    """Return a bound that some sub-networks keep and others do not, and the range of all, as text."""
    low, high = reachable_range(space, estimator, np.random.default_rng(seed))
    bound = low + _EXAMPLE_SHARE * (high - low)
    return rounded_up(bound, 3), f"{rounded_up(low, 3)} to {rounded_up(high, 3)}"


def loose_limit_lines(space: SearchSpace, limits: Sequence[Limit], seed: int = 0) -> list[str]:
    """Return a line for the user for each finite limit that even the largest sub-network keeps."""
    lines = []
    for limit in limits:
        if not limit.bounded:
            continue
        low, high = reachable_range(space, limit.estimator, np.random.default_rng(seed))
        if high <= limit.maximum:
            lines.append(
                f"{limit.name} = {limit.show(limit.maximum)} does not bind: the largest sub-network has "
                f"{limit.show(high, 3)}, the smallest {limit.show(low, 3)}"
            )
    return lines


def reachable_genome(space: SearchSpace, limits: Sequence[Limit], rng: np.random.Generator) -> Genomes:
    """Return one genome, shape (num_genes,), that keeps all limits, found by descent on their violation.

    Raises:
        UserError: if none is found, naming each limit that is unreachable alone with the reachable range, or,
            if each is reachable alone, the closest network and the smallest value of each.
    """

    def total_violation(genomes: Genomes, /) -> NDArray[np.float64]:
        return np.asarray(violations(limits, limit_values(limits, genomes)).sum(axis=1))

    genome, total = smallest_reachable(space, total_violation, rng)
    if total == 0.0 and feasible(limits, genome[None])[0]:
        return genome
    minima = [smallest_reachable(space, limit.estimator, rng) for limit in limits]
    for candidate, _ in minima:
        if feasible(limits, candidate[None])[0]:
            return candidate
    unreachable = [
        _unreachable(space, limit, rng)
        for limit, (_, value) in zip(limits, minima, strict=True)
        if not value <= limit.maximum
    ]
    if unreachable:
        raise UserError("\n".join(unreachable))
    raise UserError(_jointly_unreachable(space, limits, genome, [value for _, value in minima]))


def _unreachable(space: SearchSpace, limit: Limit, rng: np.random.Generator) -> str:
    low, high = reachable_range(space, limit.estimator, rng)
    return (
        f"No sub-network of space {space.name!r} reaches {limit.name} = {limit.show(limit.maximum)}; "
        f"sub-networks have {limit.show_range(low, high)}. Raise the limit to at least {limit.show(low, 3)}."
    )


def _jointly_unreachable(
    space: SearchSpace, limits: Sequence[Limit], closest_genome: Genomes, min_values: Sequence[float]
) -> str:
    closest_values = limit_values(limits, closest_genome[None])[0]
    descriptions = "; ".join(
        f"{limit.name} = {limit.show(limit.maximum)} (smallest alone {limit.show(low)}, "
        f"closest network {limit.show(value)})"
        for limit, low, value in zip(limits, min_values, closest_values, strict=True)
    )
    return (
        f"No sub-network of space {space.name!r} was found that keeps all limits at once: {descriptions}. "
        "Raise at least one of them."
    )
