"""Different devices, different networks: the best network of each device, evaluated on the others.

The space is mobilenet_v3 at 224 pixels, the accuracy a predictor fitted on 1,081 measured ImageNet accuracies
(see predictor_quality.py), the latencies are tables of several engines and precisions. The limit of each
device is the median latency of the same random networks on it, times --share. The loss on another device is
against the best network of that device that is as fast there.

Run: python benchmarks/devices.py [TABLE.json ...] [--share 1.0]    (default: the shipped tables)
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from predictor_quality import load_measurements

from latency_tables.table.shipped import DATA
from latency_tables.table.table import LatencyTable
from ofa.launch import compose_group
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from predictors.fitting import fit_mlp
from predictors.settings import FitSettings
from search.algorithms.registry import SearchPlan, plan_search
from search.limits.limit import Limit

RESOLUTION = 224


@dataclass(frozen=True)
class Search:
    """A space with the accuracy of its networks, and the plan of a search."""

    space: StagedSpace
    accuracy: Estimator
    plan: SearchPlan

    def best(self, latency: Estimator, limit_ms: float) -> SubnetConfig:
        """Return the most accurate network within `limit_ms`."""
        limits = [Limit("latency_ms", latency, limit_ms)]
        best: SubnetConfig = self.plan.run(self.space, self.accuracy, limits, 0).best.config
        return best

    def points(self, config: SubnetConfig) -> float:
        """Return the predicted top-1 in percent."""
        return float(100 * self.accuracy(self.genomes(config))[0])

    def genomes(self, config: SubnetConfig) -> Genomes:
        """Return the population of one network."""
        return self.space.genomes([config])


def stages(config: SubnetConfig) -> str:
    """Return kernel sizes and expand ratios of the blocks, stage by stage."""
    return " ".join(
        "".join(str(block.kernel_size) for block in stage)
        + "/"
        + "".join(f"{block.expand_ratio:g}" for block in stage)
        for stage in config.stages
    )


def main() -> None:
    """Search for each device, and evaluate each network on all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    whole, genomes, top1 = load_measurements()
    space = whole.restrict({"resolution": [RESOLUTION]})
    plan = plan_search(compose_group("search", "evolution"))
    search = Search(space, fit_mlp(space, genomes, top1, FitSettings(), 0), plan)
    tables = [
        LatencyTable.load(path) for path in arguments.tables or sorted(DATA.glob(f"{space.name}/*.json"))
    ]
    names = [table.device.name for table in tables]
    latencies = dict(zip(names, (table.estimator(space) for table in tables), strict=True))
    usual = space.sample(1000, np.random.default_rng(0))
    limits = {name: arguments.share * float(np.median(latency(usual))) for name, latency in latencies.items()}
    found = {name: search.best(latencies[name], limits[name]) for name in names}
    print(
        "| searched for | limit | top-1 | kernels/expand ratios of each stage's blocks |\n|---|---|---|---|"
    )
    for name, config in found.items():
        print(f"| {name} | {limits[name]:.2f} ms | {search.points(config):.2f} % | {stages(config)} |")
    print(f"\n| used on, searched for | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for used_on, latency in latencies.items():
        losses = []
        for name in names:
            there_ms = float(latency(search.genomes(found[name]))[0])
            best = found[name] if name == used_on else search.best(latency, there_ms)
            loss = search.points(best) - search.points(found[name])
            losses.append(f"{loss:.2f} ({round(100 * (there_ms / limits[used_on] - 1)):+d} %)")
        print(f"| {used_on} | {' | '.join(losses)} |", flush=True)


if __name__ == "__main__":
    main()
