"""Measure all bundles of a run side by side and plot them, e.g. `report_run.py run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from latency_tables.device import DeviceSpec
from latency_tables.network import TimedNetwork, measure_networks
from latency_tables.table import LatencyTable
from ofa.checkpoint import load_supernet
from ofa.cost import network_cost
from ofa.data import load_data
from ofa.evaluate import SubnetEvaluator, top1
from ofa.export import load_bundle
from ofa.launch import choose_accelerator, command
from ofa.progress import progress_bar
from ofa.run import RunDirectory
from predictors.mlp import AccuracyPredictor
from search.plot import plot_tradeoff
from search.result import SearchResult

COLUMNS = "network, limit ms, top-1 pred. %, top-1 {} %, ms pred., ms measured, M MACs, k params, found in s"


@dataclass(frozen=True)
class ReportConfig:
    """Settings of `conf/report_run.yaml`."""

    run_name: str
    runs_dir: str
    device: DeviceSpec
    random_networks: int
    split: str
    calibration_images: int
    seed: int
    data_root: str | None
    accelerator: str
    threads: int | None


@command("report_run", ReportConfig)
def report_run(config: ReportConfig) -> Path:
    """Print the table, write `pareto.png` and return its path."""
    choose_accelerator("cpu", config.threads)
    run = RunDirectory(config.runs_dir, config.run_name)
    supernet, made = load_supernet(run.supernet)
    space = made.space
    data = load_data(run.load_data_settings(config.data_root))
    evaluator = SubnetEvaluator(supernet, data, config.split, calibration_images=config.calibration_images)
    accuracy = AccuracyPredictor.load(run.predictor, space)
    latency = LatencyTable.load(run.table(config.device.name)).estimator(space)
    bundles = {path.parent.name: load_bundle(path.parent) for path in run.bundles.glob("[!.]*/subnet.json")}
    configs = {name: bundle.info.config for name, bundle in bundles.items()}
    networks = {name: bundle.network for name, bundle in bundles.items()}
    for genome in space.sample(config.random_networks, np.random.default_rng(config.seed)):
        random = space.config(genome)
        configs[f"random {random.id}"], networks[f"random {random.id}"] = random, evaluator.network(random)
    shapes = {name: (space.in_channels, c.resolution, c.resolution) for name, c in configs.items()}
    timed = {name: TimedNetwork(network, shapes[name]) for name, network in networks.items()}
    with progress_bar("timing") as progress:
        timings = measure_networks(timed, config.device, config.seed, progress)
    searches = {path.stem: SearchResult.load(path) for path in sorted(run.search("x").parent.glob("*.json"))}
    predicted_ms, predicted = (
        latency(space.genomes([*configs.values()])),
        accuracy(space.genomes([*configs.values()])),
    )
    table = Table(
        *COLUMNS.format(config.split).split(", "), title=f"{config.run_name} on {config.device.name}"
    )
    points: dict[str, list[tuple[float, float]]] = {"searched": [], "other bundles": [], "random": []}
    for i, name in sorted(enumerate(configs), key=lambda pair: predicted_ms[pair[0]]):
        cost, measured = network_cost(networks[name].specs), timings[name].latency_ms
        found = searches.get(str(bundles[name].info.provenance.get("subnet"))) if name in bundles else None
        share = top1(networks[name], evaluator.batches(configs[name].resolution))
        group = "searched" if found else "other bundles" if name in bundles else "random"
        points[group].append((measured, 100 * share))
        limit, seconds = (f"{found.limits[0].maximum:g}", f"{found.seconds:.2f}") if found else ("", "")
        row = (100 * predicted[i], 100 * share, predicted_ms[i], measured, cost.macs / 1e6)
        table.add_row(
            name, limit, *(f"{value:.2f}" for value in row), f"{cost.parameters / 1e3:.0f}", seconds
        )
    Console().print(table)
    front = [
        (c.values["latency_ms"], 100 * c.accuracy)
        for s in searches.values()
        for c in s.front
        if "latency_ms" in c.values
    ]
    path = run.path / "pareto.png"
    plot_tradeoff(sorted(front), points, path)
    print(f"figure: {path}")
    return path


if __name__ == "__main__":
    report_run()
