"""`one_step`: a smaller network within limits without training, by evaluating sub-networks (EagleEye)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ofa.common.errors import UserError
from ofa.graph.space import GraphSpace
from ofa.graph.supernet import GraphSupernet
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.plain import GeneConfig

# A candidate is enlarged until it uses this share of a limit, or no gene fits any more.
_USED_SHARE = 0.9
_MAX_CHANGES = 10_000


@dataclass(frozen=True)
class Candidate:
    """A sub-network that was evaluated.

    Attributes:
        config: the sub-network.
        score: what the evaluation gave; larger is better.
        costs: its costs, by the names of the limits.
    """

    config: GeneConfig
    score: float
    costs: Mapping[str, float]


def one_step(
    supernet: GraphSupernet,
    limits: Mapping[str, float],
    *,
    recalibrate: Callable[[nn.Module], object],
    evaluate: Callable[[nn.Module], float],
    num_candidates: int = 50,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> list[Candidate]:
    """Return sub-networks within limits, best first, without training (Li et al. 2020, EagleEye).

    The units are sorted by importance; candidates are drawn inside the limits, the uniform plan among them;
    the batch-norm statistics of each are computed anew before it is evaluated, because those of the whole
    network say nothing about it.

    Args:
        supernet: supernet of a trained network; its units are sorted in place.
        limits: largest value of costs by name; see `GraphSupernet.costs`.
        recalibrate: computes the batch-norm statistics of a network from training images, in place.
        evaluate: returns how good a network is on validation data; larger is better.
        num_candidates: number of candidates.
        seed: seed of the draws.
        progress: called after each candidate with how many are done and their number.

    Raises:
        UserError: for an unknown cost, or a limit below the smallest network.
    """
    space = supernet.space
    supernet.sort_channels(space.keep_largest({gene.kind: 1 for gene in space.genes}))
    costs = {name: _cost(supernet, name) for name in limits}
    genomes = candidates_within(space, limits, costs, num_candidates, np.random.default_rng(seed))
    values = {name: cost(genomes) for name, cost in costs.items()}
    results = []
    for index, genome in enumerate(genomes):
        config = space.config(genome)
        network = supernet.extract(config)
        recalibrate(network)
        facts = {name: float(value[index]) for name, value in values.items()}
        results.append(Candidate(config, evaluate(network), facts))
        if progress is not None:
            progress(index + 1, len(genomes))
    return sorted(results, key=lambda candidate: candidate.score, reverse=True)


def _cost(supernet: GraphSupernet, name: str) -> Estimator:
    if name not in supernet.costs:
        raise UserError(f"There is no cost {name!r}; expected one of {', '.join(supernet.costs)}.")
    return supernet.costs[name]


def candidates_within(
    space: GraphSpace,
    limits: Mapping[str, float],
    costs: Mapping[str, Estimator],
    count: int,
    rng: np.random.Generator,
) -> Genomes:
    """Return distinct genomes within limits, shape (n, num_genes), n up to `count`; the first is uniform.

    Random networks lose genes one by one until they fit, and gain others while they use less than 90 % of
    every limit.

    Raises:
        UserError: naming the smallest value, if a limit is below it.
    """
    smallest = space.genome(space.smallest)[None]
    for name, limit in limits.items():
        if costs[name](smallest)[0] > limit:
            raise UserError(
                f"The limit of {name} is {limit:g}; the smallest network of {space.name} has "
                f"{costs[name](smallest)[0]:g}."
            )

    def used_share(genome: NDArray[np.int8]) -> float:
        row = space.canonical(genome[None])
        return max((float(costs[name](row)[0]) / limit for name, limit in limits.items()), default=0.0)

    rows = {_uniform(space, used_share).tobytes(): _uniform(space, used_share)}
    num_choices = np.array([len(gene.choices) for gene in space.genes])
    for genome in space.sample(4 * count, rng):
        if len(rows) >= count:
            break
        row = _fitted(space, genome.copy(), num_choices, used_share, rng)
        rows.setdefault(row.tobytes(), row)
    return np.stack(list(rows.values()))


def _uniform(space: GraphSpace, used_share: Callable[[NDArray[np.int8]], float]) -> NDArray[np.int8]:
    """Return the largest network within the limits whose genes all have the same share of their choices."""
    num_choices = np.array([len(gene.choices) for gene in space.genes])
    best = np.zeros(len(num_choices), np.int8)
    for share in np.linspace(0, 1, int(num_choices.max()) * 4):
        genome = np.round(share * (num_choices - 1)).astype(np.int8)
        if used_share(genome) <= 1:
            best = genome
    return np.asarray(space.canonical(best[None])[0])


def _fitted(
    space: GraphSpace,
    genome: NDArray[np.int8],
    num_choices: NDArray[np.int64],
    used_share: Callable[[NDArray[np.int8]], float],
    rng: np.random.Generator,
) -> NDArray[np.int8]:
    """Return a genome that fits: genes are lowered at random, then raised while they fit."""
    for _ in range(_MAX_CHANGES):
        if used_share(genome) <= 1:
            break
        genome[rng.choice(np.flatnonzero(genome > 0))] -= 1
    for column in rng.permutation(len(genome)):
        if used_share(genome) >= _USED_SHARE:
            break
        raised = genome.copy()
        raised[column] = min(raised[column] + 1, num_choices[column] - 1)
        if used_share(raised) <= 1:
            genome = raised
    return np.asarray(space.canonical(genome[None])[0])
