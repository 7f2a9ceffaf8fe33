"""Measure all bundles of a run side by side and plot them, e.g. `report_run.py run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.console import Console

from latency_tables.device import DeviceSpec
from latency_tables.network import TimedNetwork, measure_networks
from latency_tables.table import LatencyTable
from ofa.cost import network_cost
from ofa.evaluate import SubnetEvaluator, top1
from ofa.export import load_bundle
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunConfig, open_run
from predictors.mlp import AccuracyPredictor
from search.choose import searches_by_subnet
from search.report import MeasuredNetwork, plot_tradeoff, report_table


@dataclass(frozen=True, kw_only=True)
class ReportConfig(RunConfig):
    """Settings of `conf/report_run.yaml`."""

    device: DeviceSpec
    random_networks: int
    split: str
    calibration_images: int
    seed: int


@command("report_run", ReportConfig)
def report_run(config: ReportConfig) -> list[MeasuredNetwork]:
    """Print the table, write `pareto.png` and return the networks."""
    run, directory, device = open_run(config), config.directory, config.device
    space, calibration = run.info.space, config.calibration_images
    evaluator = SubnetEvaluator(run.supernet, run.data, config.split, calibration_images=calibration)
    bundles = [load_bundle(file.parent) for file in sorted(directory.bundles.glob("[!.]*/subnet.json"))]
    drawn = space.sample(config.random_networks, np.random.default_rng(config.seed))
    configs = [bundle.info.config for bundle in bundles] + [space.config(genome) for genome in drawn]
    modules = [bundle.network for bundle in bundles]
    modules += [evaluator.network(choice).cpu() for choice in configs[len(bundles) :]]
    with progress_bar("timing") as progress:
        shapes = [(space.in_channels, choice.resolution, choice.resolution) for choice in configs]
        timed = {str(i): TimedNetwork(m, shapes[i]) for i, m in enumerate(modules)}
        timings = measure_networks(timed, device, config.seed, progress)
    searches = searches_by_subnet(directory.path / "search")
    accuracy = AccuracyPredictor.load(directory.predictor, space)(space.genomes(configs))
    latency = LatencyTable.load(directory.table(device.name)).estimator(space)(space.genomes(configs))
    networks = []
    for i, module in enumerate(modules):
        measured = 100 * top1(module.to(run.device), evaluator.batches(configs[i].resolution))
        estimates = 100 * accuracy[i], measured, latency[i], timings[str(i)].latency_ms
        bundle, cost = bundles[i] if i < len(bundles) else None, network_cost(module.specs)
        name, found = (bundle.path.name, bundle.info.provenance.get("subnet")) if bundle else ("", "")
        networks.append(
            MeasuredNetwork(name, searches.get(str(found)), *estimates, cost.macs, cost.parameters)
        )
    Console().print(report_table(networks, f"{config.run_name} on {device.name}", config.split))
    plot_tradeoff(networks, directory.path / "pareto.png")
    print(f"figure: {directory.path / 'pareto.png'}")
    return networks


if __name__ == "__main__":
    report_run()
