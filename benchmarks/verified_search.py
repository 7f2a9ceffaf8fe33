"""Verified search at several limits on several engines: is a repeated measurement inside the limit?

For each table of this machine, networks are searched at limits spread over the space's latencies, with and
without verification. Each result is then measured again in fresh processes. The accuracy is a function that
increases with multiply-accumulates, layers and kernels, or that of a published predictor (--predictor, for
--space mobilenet_v3 --width 1.2). With --model, tables are those of a user's model (see `graph_tables.py`)
and the accuracy increases with multiply-accumulates and parameters.

Run: python benchmarks/verified_search.py [TABLE.json ...] [--space NAME | --model NAME --side 96]
     [--shares ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from graph_tables import elastic_model

from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.tables import Networks
from latency_tables.remote.verification import MeasureHere
from latency_tables.table.device import DeviceSpec
from latency_tables.table.graph_table import GraphTable
from latency_tables.table.shipped import DATA
from latency_tables.table.table import LatencyTable
from ofa.architecture.cost import compile_cost, macs
from ofa.architecture.layer import LayerSpec
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.config import build
from ofa.graph.space import ImageSpace
from ofa.graph.supernet import GraphSupernet
from ofa.launch import compose_group
from ofa.space.config import AnyConfig
from ofa.space.estimator import Estimator
from ofa.space.staged import StagedSpace
from predictors.published.predictor import import_predictor
from search.algorithms.registry import SearchPlan, plan_search
from search.limits.limit import Limit
from search.result.result import SearchResult
from search.verified.verify import TOO_FAST, VerifySettings, verified_search

DEVICES = ("cascadelake_onnx", "cascadelake_openvino")


@dataclass(frozen=True)
class Task:
    """A space, its networks as programs, its accuracy and latency, and the device."""

    space: ImageSpace
    networks: Networks
    accuracy: Estimator
    device: DeviceSpec
    latency: Estimator
    seed: int


def synthetic_accuracy(space: StagedSpace) -> Estimator:
    """Return an accuracy that rises with MACs, and for equal MACs with layers and kernel sizes."""

    def reach(spec: LayerSpec) -> float:
        return float(spec.kernel_size) if isinstance(spec, MBConvSpec) else 0.0

    count, depth, kernels = (compile_cost(space, cost) for cost in (macs, lambda spec: 1.0, reach))

    def estimate(
        genomes: np.ndarray[tuple[int, ...], np.dtype[np.int8]], /
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return 0.55 + 0.03 * np.log(count(genomes) / 1e6) + 0.002 * depth(genomes) + 0.0003 * kernels(genomes)

    return estimate


def accuracy_by_costs(supernet: GraphSupernet) -> Estimator:
    """Return an accuracy of a user's model that rises with MACs, and for equal MACs with parameters."""
    count, parameters = supernet.costs["macs"], supernet.costs["parameters"]

    def estimate(
        genomes: np.ndarray[tuple[int, ...], np.dtype[np.int8]], /
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return 0.02 * np.log(count(genomes)) + 0.01 * np.log(parameters(genomes)) + 0.2

    return estimate


def limits_of(task: Task, shares: Sequence[float]) -> list[float]:
    """Return latencies (ms, three digits) that these shares of random networks keep."""
    drawn = task.latency(task.space.sample(2000, np.random.default_rng(task.seed)))
    return [float(f"{value:.3g}") for value in np.quantile(drawn, shares)]


def measure_again(task: Task, config: AnyConfig, processes: int, seed: int) -> float:
    """Return the latency (ms) of a network, measured alone in fresh processes."""
    return statistics.median(MeasureHere(task.networks, task.device, processes, seed)([config])[config])


def search_both(
    task: Task, plan: SearchPlan, maximum: float, settings: VerifySettings
) -> tuple[SearchResult, SearchResult]:
    """Return the plain and the verified result."""
    limits = [Limit("latency_ms", task.latency, maximum, "ms")]
    plain = plan.run(task.space, task.accuracy, limits, task.seed)
    measure = MeasureHere(task.networks, task.device, settings.processes, task.seed)
    verified = verified_search(plan, task.space, task.accuracy, limits, task.seed, measure, settings)
    return plain, verified


def print_limits(
    task: Task, plan: SearchPlan, settings: VerifySettings, limits: Sequence[float], checks: int
) -> bool:
    """Print a row per limit and return whether the bar holds at all of them."""
    print(
        f"\n{task.device.name}: {task.space.name}, {settings.processes} processes in the search, "
        f"{checks} afterwards\nlimit ms  plain: top-1  again/limit   verified: top-1  predicted  measured  "
        "again/limit  networks      s"
    )
    holds = True
    for place, maximum in enumerate(limits):
        started = time.monotonic()
        plain, verified = search_both(task, plan, maximum, settings)
        seconds = time.monotonic() - started
        found = verified.verification
        assert found is not None
        chosen = next(n for n in found.networks if n.config.id == found.best_id)
        ratios = [
            measure_again(task, r.best.config, checks, 1000 + place) / maximum for r in (plain, verified)
        ]
        # A network far below the limit is acceptable only if no more accurate network fits.
        known = [c.accuracy for c in verified.front] + [plain.best.accuracy] * (ratios[0] <= 1)
        better = max(known) > chosen.accuracy + 1e-9
        good = ratios[1] <= 1 and (ratios[1] >= TOO_FAST or not better)
        holds &= good
        print(
            f"{maximum:8.3g} {plain.best.accuracy:13.4f} {ratios[0]:12.3f} {chosen.accuracy:17.4f} "
            f"{chosen.predicted:10.4g} {chosen.measured:9.4g} {ratios[1]:12.3f} {len(found.networks):9d} "
            f"{seconds:6.0f}  {'' if good else 'MISSED'}",
            flush=True,
        )
    return holds


def family_task(path: Path, options: argparse.Namespace) -> Task:
    """Return the search in the space of a published family, by the table at `path`."""
    width = {} if options.width is None else {"width_multiplier": options.width}
    whole = build(StagedSpace, compose_group("space", options.space) | width)
    table = LatencyTable.load(path)
    space = whole.restrict({"resolution": table.covered_resolutions(whole)})
    accuracy = import_predictor(options.predictor, space) if options.predictor else synthetic_accuracy(space)
    print(f"{path}: {table.error_text}")
    return Task(space, space, accuracy, table.device, table.estimator(space), options.seed)


def user_task(path: Path, options: argparse.Namespace) -> Task:
    """Return the search in all sub-networks of a user's model, by the table at `path`."""
    table = GraphTable.load(path)
    supernet = elastic_model(options.model, options.side)
    space = supernet.space
    print(f"{path}: {table.error_text}")
    return Task(
        space,
        GraphNetworks(supernet, space),
        accuracy_by_costs(supernet),
        table.device,
        table.estimator(space),
        options.seed,
    )


def main() -> None:
    """Measure all installed engines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", type=Path)
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--width", type=float, help="width multiplier of the space")
    parser.add_argument("--model", help="user's model of the tables, e.g. torchvision:mobilenet_v2")
    parser.add_argument("--side", type=int, default=96, help="side of its images in pixels")
    parser.add_argument("--predictor", type=Path, help="published accuracy predictor (.pth)")
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=[0.05, 0.25, 0.5, 0.75, 0.95],
        help="limits, as quantiles of the latencies of random networks",
    )
    parser.add_argument("--checks", type=int, default=5, help="fresh processes that measure a result again")
    parser.add_argument("--processes", type=int, default=VerifySettings().processes)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plan = plan_search(compose_group("search", "evolution"))
    settings = VerifySettings(processes=options.processes)
    results = {}
    for path in options.tables or [DATA / options.space / f"{name}.json" for name in DEVICES]:
        task = user_task(path, options) if options.model else family_task(path, options)
        limits = limits_of(task, options.shares)
        results[task.device.name] = print_limits(task, plan, settings, limits, options.checks)
    for device, holds in results.items():
        print(f"{device}: {'inside every limit' if holds else 'MISSED'}")


if __name__ == "__main__":
    main()
