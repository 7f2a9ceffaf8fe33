"""Search problems that no setting of the search was chosen on: three synthetic ones.

- `stages`: 6 stages of 2 to 5 blocks, each with a kernel size and a width; accuracy has diminishing returns
  in every choice, and twelve wide basins around random networks.
- `modes`: 60 widths of 2 to 9 choices; the cost is that of a chain of convolutions, and each resolution
  prefers other widths.
- `relu`: 14 chains of 1 to 5 blocks with different numbers of choices; accuracy is a random ReLU network; a
  limit on a sum and one on a peak.

Accuracies are scaled to about the spread of the published predictor of the Note10 on random networks. "Best
known" is the best of all these searches and of some with a longer budget.

Run: python benchmarks/planted_spaces.py [--problems ...] [--seeds 10] [--long-seeds 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ofa.common.threads import blas_threads
from ofa.space import Estimator, Genomes
from ofa.space.genes import Condition, Gene
from ofa.space.onehot import OneHot
from ofa.space.plain import GeneSpace
from ofa.space.space import SearchSpace
from search.algorithms.evolution import EvolutionSettings, evolve
from search.limits.limit import Limit

LONG = 5
"""Budget of a long search, as a multiple of the default."""

MEAN, SPREAD = 0.76, 0.015
"""Mean and standard deviation of the accuracies of random networks."""

SHARES = (0.1, 0.25, 0.5)
"""Limits, between the costs of the smallest network (0) and the largest (1)."""


@dataclass(frozen=True)
class Problem:
    """A search problem: a space, the accuracy to maximise, and sets of limits from strict to loose."""

    space: SearchSpace
    accuracy: Estimator
    limits: tuple[tuple[Limit, ...], ...]


def scaled(space: SearchSpace, raw: Estimator) -> Estimator:
    """Return `raw` with the mean and the spread of a predictor's accuracies."""
    values = raw(space.sample(4000, np.random.default_rng(0)))
    mean, deviation = float(values.mean()), float(values.std())
    return lambda genomes: MEAN + SPREAD * (raw(genomes) - mean) / deviation


def between(space: SearchSpace, cost: Estimator, shares: Sequence[float] = SHARES) -> list[float]:
    """Return bounds between the costs of the smallest and the largest network."""
    low, high = cost(space.genomes([space.smallest, space.largest]))
    return [float(low + share * (high - low)) for share in shares]


def chains(
    num_chains: int, depths: Sequence[int], choices: Callable[[int, int], Sequence[int]]
) -> list[Gene]:
    """Return a depth per chain and the genes of its blocks, each with as many choices as `choices` says."""
    genes = []
    for chain in range(num_chains):
        genes.append(Gene(f"depth{chain}", tuple(map(float, depths)), "depth"))
        for block in range(max(depths)):
            open_at = tuple(float(depth) for depth in depths if depth > block)
            for place, count in enumerate(choices(chain, block)):
                name = f"gene{chain}.{block}.{place}"
                condition = Condition(f"depth{chain}", open_at)
                genes.append(Gene(name, tuple(map(float, range(1, count + 1))), "size", "", condition))
    return genes


def returns(space: SearchSpace, rng: np.random.Generator) -> Estimator:
    """Return a sum over active genes of random gains that shrink from choice to choice."""
    one_hot = OneHot(space, only_active=True)
    widths = [len(gene.choices) for gene in space.genes]
    gains = [rng.gamma(1.0, size=1) * np.arange(1, width + 1) ** 0.4 for width in widths]
    table = np.concatenate(gains)
    return lambda genomes: np.asarray(one_hot(genomes) @ table, np.float64)


def relu_network(space: SearchSpace, hidden: int, rng: np.random.Generator) -> Estimator:
    """Return a random network of two hidden ReLU layers on the one-hot active genes."""
    one_hot = OneHot(space, only_active=True)
    sizes = (one_hot.width, hidden, hidden, 1)
    scales = [(2.0 / (len(space.genes) if i == 0 else sizes[i])) ** 0.5 for i in range(3)]
    weights = [
        (scale * rng.standard_normal(sizes[i : i + 2])).astype(np.float32) for i, scale in enumerate(scales)
    ]
    biases = [0.3 * rng.standard_normal(size).astype(np.float32) for size in sizes[1:]]

    @blas_threads(1)
    def estimate(genomes: Genomes) -> NDArray[np.float64]:
        values = one_hot(genomes)
        for weight, bias in zip(weights[:-1], biases, strict=False):
            values = np.maximum(values @ weight + bias, 0)
        return np.asarray(values @ weights[-1], np.float64)[:, 0]

    return estimate


def summed_cost(space: SearchSpace, rng: np.random.Generator) -> Estimator:
    """Return a sum over active genes of costs that grow with the choice, times the squared resolution."""
    one_hot = OneHot(space, only_active=True)
    costs = []
    for gene in space.genes:
        grows = rng.lognormal(0.0, 0.6) * (0.3 + np.arange(len(gene.choices)) ** rng.uniform(0.7, 1.4))
        costs.append(np.zeros(len(gene.choices)) if gene.kind in ("resolution", "depth") else grows)
    table = np.concatenate(costs)
    return lambda genomes: area(space, genomes) * np.asarray(one_hot(genomes) @ table, np.float64)


def area(space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
    """Return the number of pixels, as a share of that at 224 px."""
    column = space.gene_index["resolution"]
    return np.asarray((np.array(space.genes[column].choices) / 224)[genomes[:, column]] ** 2)


def stages_problem() -> Problem:
    """Return the problem `stages`."""
    rng = np.random.default_rng(101)
    resolution = Gene("resolution", (160.0, 176.0, 192.0, 208.0, 224.0), "resolution")
    space = GeneSpace("stages", (resolution, *chains(6, (2, 3, 4, 5), lambda *_: (3, 4))))
    gains, centres = returns(space, rng), space.sample(12, rng)
    heights, one_hot = rng.uniform(0.5, 1.0, 12), OneHot(space)
    targets = one_hot(centres).T
    unit = float(gains(space.sample(1000, rng)).std())

    def accuracy(genomes: Genomes) -> NDArray[np.float64]:
        distances = len(space.genes) - one_hot(genomes) @ targets
        basins = (heights * np.exp(-distances / 15.0)).max(axis=1)
        return np.asarray(gains(genomes) + 6.0 * unit * basins)

    cost = summed_cost(space, rng)
    limits = tuple((Limit("cost", cost, bound),) for bound in between(space, cost))
    return Problem(space, scaled(space, accuracy), limits)


def modes_problem() -> Problem:
    """Return the problem `modes`."""
    rng = np.random.default_rng(202)
    counts = rng.integers(2, 10, 60)
    widths = [
        Gene(f"width{i}", tuple(float(round(base * (1 + 0.3 * j))) for j in range(count)), "width")
        for i, (count, base) in enumerate(zip(counts, rng.integers(16, 97, 60), strict=True))
    ]
    space = GeneSpace("modes", (Gene("resolution", (128.0, 160.0, 192.0, 224.0), "resolution"), *widths))
    values = np.ones((61, 9))
    for row, gene in zip(values, space.genes, strict=True):
        row[: len(gene.choices)] = gene.choices
    preferences = rng.gamma(1.0, size=60) + 0.5 * rng.gamma(1.0, size=(4, 60))
    pairs = 0.1 * rng.standard_normal((60, 9, 9))

    def accuracy(genomes: Genomes) -> NDArray[np.float64]:
        chosen = genomes[:, 1:].astype(np.intp)
        sizes = np.log2(values[np.arange(1, 61), chosen] / values[1:, 0]) ** 0.7
        coupled = pairs[np.arange(59), chosen[:, :-1], chosen[:, 1:]].sum(axis=1)
        of_mode = (preferences[genomes[:, 0]] * sizes).sum(axis=1)
        return np.asarray(of_mode + coupled + 1.5 * genomes[:, 0])

    def cost(genomes: Genomes) -> NDArray[np.float64]:
        chosen = values[np.arange(1, 61), genomes[:, 1:]]
        return np.asarray((chosen[:, :-1] * chosen[:, 1:]).sum(axis=1) * area(space, genomes))

    limits = tuple((Limit("cost", cost, bound),) for bound in between(space, cost))
    return Problem(space, scaled(space, accuracy), limits)


def relu_problem() -> Problem:
    """Return the problem `relu`."""
    rng = np.random.default_rng(303)
    resolution = Gene("resolution", (160.0, 192.0, 224.0), "resolution")
    genes = chains(14, (1, 2, 3, 4, 5), lambda chain, block: (2 + (chain + block) % 4,))
    space = GeneSpace("relu", (resolution, *genes))
    cost, sizes = summed_cost(space, rng), rng.lognormal(0.0, 0.6, len(space.genes))
    gains, network = returns(space, rng), relu_network(space, 64, rng)
    sample = space.sample(1000, rng)
    ratio = 0.4 * float(gains(sample).std() / network(sample).std())

    def peak(genomes: Genomes) -> NDArray[np.float64]:
        return np.asarray(area(space, genomes) * (sizes * (1 + genomes)).max(axis=1))

    def accuracy(genomes: Genomes) -> NDArray[np.float64]:
        return gains(genomes) + ratio * network(genomes)

    (memory,) = between(space, peak, (0.5,))
    limits = tuple(
        (Limit("cost", cost, bound), Limit("peak", peak, memory)) for bound in between(space, cost)
    )
    return Problem(space, scaled(space, accuracy), limits)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "stages": stages_problem,
    "modes": modes_problem,
    "relu": relu_problem,
}


def print_table(name: str, problem: Problem, seeds: int, long_seeds: int) -> None:
    """Print, for each set of limits, accuracies of default searches, and the best of these and long ones."""
    space, default = problem.space, EvolutionSettings()
    long = replace(default, generations=LONG * default.generations)
    print(f"\n{name}: {len(space.genes)} genes, {space.size:.0e} networks")
    print("          limit    worst   median     best  best known   cpu s")
    for limits in problem.limits:
        accuracies, seconds = [], []
        for seed in range(seeds):
            start = time.process_time()
            rng = np.random.default_rng(seed)
            accuracies.append(evolve(space, problem.accuracy, limits, default, rng).best.accuracy)
            seconds.append(time.process_time() - start)
        long_runs = [
            evolve(space, problem.accuracy, limits, long, np.random.default_rng(1000 + seed)).best.accuracy
            for seed in range(long_seeds)
        ]
        print(
            f"{limits[0].maximum:15.5g} {min(accuracies):8.4f} {statistics.median(accuracies):8.4f} "
            f"{max(accuracies):8.4f} {max(accuracies + long_runs):11.4f} {statistics.median(seconds):7.2f}",
            flush=True,
        )


def main() -> None:
    """Print the tables of the chosen problems."""
    parser = argparse.ArgumentParser(description="The default search on problems that it was not chosen on.")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--long-seeds", type=int, default=2, help=f"searches of {LONG} times the budget")
    arguments = parser.parse_args()
    for name in arguments.problems:
        print_table(name, PROBLEMS[name](), arguments.seeds, arguments.long_seeds)


if __name__ == "__main__":
    main()
