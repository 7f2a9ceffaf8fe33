"""`one_step`: a smaller network within limits without training, by evaluating sub-networks (EagleEye)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.common.score_file import ScoreFile
from ofa.graph.measured_cost import MeasuredCost
from ofa.graph.reconstruction import Reconstructor
from ofa.graph.space import GraphSpace
from ofa.graph.supernet import GraphSupernet
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.plain import GeneConfig

Sort = Callable[[GraphSupernet, GraphSpace], object]
"""Sorts the units of a supernet in place, so that those that matter most come first."""

Reconstruct = Callable[[nn.Module, GeneConfig], object]
"""Fits the weights of an extracted network in place; see `ofa.graph.reconstruction`."""

# A candidate is enlarged until it uses this share of a limit, or no gene fits any more.
_USED_SHARE = 0.95
_MAX_CHANGES = 10_000
_MAX_ROUNDS = 4


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
    sort: Sort = GraphSupernet.sort_channels,
    fitting_images: Tensor | None = None,
    num_candidates: int = 50,
    seed: int = 0,
    measured: Mapping[str, MeasuredCost] = MappingProxyType({}),
    scores: ScoreFile | None = None,
    progress: Callable[[], AbstractContextManager[ProgressCallback]] = lambda: nullcontext(silent),
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
        sort: sorts the units by importance.
        fitting_images: images (n, ...) to which the layers of each network are fitted before its
            recalibration, see `Reconstructor`; None keeps the sliced weights.
        num_candidates: number of candidates.
        seed: seed of the draws.
        measured: further costs by name, which are measured on every candidate.
        scores: file of scores; a candidate that has one is not evaluated again. None for memory alone.
        progress: opens the progress of the evaluation.

    Raises:
        UserError: for an unknown cost, a limit below the smallest network, or if no network that was measured
            keeps a limit.
    """
    space, scores = supernet.space, ScoreFile() if scores is None else scores
    costs = checked_costs(space, limits, measured)
    sort(supernet, space.only_largest)
    reconstruct = reconstruction(supernet, fitting_images)
    rng = np.random.default_rng(seed)
    if any(name in measured for name in limits):
        genomes = _measured_within(space, limits, costs, measured, num_candidates, rng)
    else:
        genomes = candidates_within(space, limits, costs, num_candidates, rng)
    configs = [space.config(genome) for genome in genomes]
    values = {
        name: measured[name].measured(configs) if name in measured else cost(genomes)
        for name, cost in costs.items()
    }
    results = []
    with progress() as report:
        for index, config in enumerate(configs):
            value = known_score(supernet, scores, recalibrate, evaluate, reconstruct, config)
            facts = {name: float(cost[index]) for name, cost in values.items()}
            results.append(Candidate(config, value, facts))
            report(index + 1, len(configs), f"best {max(result.score for result in results):.4g}")
    return sorted(results, key=lambda candidate: candidate.score, reverse=True)


def known_score(
    supernet: GraphSupernet,
    scores: ScoreFile,
    recalibrate: Callable[[nn.Module], object],
    evaluate: Callable[[nn.Module], float],
    reconstruct: Reconstruct | None,
    config: GeneConfig,
) -> float:
    """Return how good a sub-network is with batch-norm statistics of its own; it is evaluated once."""

    def compute() -> float:
        network = fitted_network(supernet, config, reconstruct)
        recalibrate(network)
        return evaluate(network)

    return scores.value(config.id, compute)


def reconstruction(supernet: GraphSupernet, images: Tensor | None) -> Reconstruct | None:
    """Return what fits sub-networks to the largest network as it is now; None without images."""
    if images is None:
        return None
    reconstructor = Reconstructor(supernet.extract(supernet.space.largest).eval(), images)
    return lambda network, config: reconstructor.fit(network, supernet.positions(config))


def fitted_network(supernet: GraphSupernet, config: GeneConfig, reconstruct: Reconstruct | None) -> nn.Module:
    """Return a sub-network in eval mode, its weights fitted if there is something that fits them."""
    network = supernet.extract(config).eval()
    if reconstruct is not None:
        reconstruct(network, config)
    return network


def checked_costs(
    space: GraphSpace, limits: Mapping[str, float], measured: Mapping[str, MeasuredCost]
) -> dict[str, Estimator]:
    """Return the estimators of the costs that have a limit.

    Raises:
        UserError: if there is no limit, for an unknown cost, or a limit below the smallest network.
    """
    if not limits:
        raise UserError("There is no limit; expected one of a cost at least.")
    known: dict[str, Estimator] = {**space_costs(space), **measured}
    for name, limit in limits.items():
        if name not in known:
            raise UserError(f"There is no cost {name!r}; expected one of {', '.join(known)}.")
        reached = costs_of(space, space.smallest, {name: known[name]}, measured)[name]
        if reached > limit:
            raise UserError(
                f"The limit of {name} is {limit:g}; the smallest network of {space.name} has {reached:g}. "
                "Give a larger limit, or allow smaller widths."
            )
    return {name: known[name] for name in limits}


def costs_of(
    space: GraphSpace,
    config: GeneConfig,
    costs: Mapping[str, Estimator],
    measured: Mapping[str, MeasuredCost],
) -> dict[str, float]:
    """Return costs of a network by name; those that are measured are measured."""
    genomes = space.genomes([config])
    return {
        name: float(measured[name].measured([config])[0] if name in measured else cost(genomes)[0])
        for name, cost in costs.items()
    }


def _measured_within(
    space: GraphSpace,
    limits: Mapping[str, float],
    costs: Mapping[str, Estimator],
    measured: Mapping[str, MeasuredCost],
    count: int,
    rng: np.random.Generator,
) -> Genomes:
    """Return up to `count` genomes that were measured within the limits; see `candidates_within`.

    Where more than a few are outside, the limits of the estimates are lowered and others are drawn.
    """
    rows: dict[bytes, NDArray[np.int8]] = {}
    aims = dict(limits)
    limited = {name: cost for name, cost in measured.items() if name in limits}
    for _ in range(_MAX_ROUNDS):
        aims |= {name: cost.reachable(aims[name], space.smallest) for name, cost in limited.items()}
        genomes = candidates_within(space, aims, costs, count, rng)
        configs = [space.config(genome) for genome in genomes]
        is_within = np.ones(len(genomes), bool)
        for name, cost in limited.items():
            shares = cost.measured(configs) / limits[name]
            is_within &= shares <= 1
            aims[name] /= max(1.0, float(np.quantile(shares, 0.9)))
        rows |= {row.tobytes(): row for row in genomes[is_within]}
        if len(rows) >= count:
            break
    # The smallest network was measured within the limits.
    smallest = space.genome(space.smallest)
    return np.stack(list(rows.values())[:count] or [smallest])


def candidates_within(
    space: GraphSpace,
    limits: Mapping[str, float],
    costs: Mapping[str, Estimator],
    count: int,
    rng: np.random.Generator,
) -> Genomes:
    """Return distinct genomes within limits, shape (n, num_genes), n up to `count`; the first is uniform.

    Random networks lose genes one by one until they fit, and gain others while they use less than 95 % of
    every limit, which the smallest network keeps.
    """

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
    columns = np.arange(len(genome))
    while len(columns) and used_share(genome) < _USED_SHARE:
        column = rng.choice(columns)
        raised = genome.copy()
        raised[column] += 1
        if raised[column] < num_choices[column] and used_share(raised) <= 1:
            genome = raised
        else:
            columns = columns[columns != column]
    return np.asarray(space.canonical(genome[None])[0])
