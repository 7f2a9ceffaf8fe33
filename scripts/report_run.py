"""Measure all bundles of a run side by side and plot them, e.g. `report_run.py run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.console import Console

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
from search.report import MeasuredNetwork, plot_tradeoff, report_table
from search.result import SearchResult


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
def report_run(config: ReportConfig) -> list[MeasuredNetwork]:
    """Print the table, write `pareto.png` and return the networks."""
    device = choose_accelerator(config.accelerator, config.threads)
    run = RunDirectory(config.runs_dir, config.run_name)
    supernet, made = load_supernet(run.supernet)
    space, data = made.space, load_data(run.load_data_settings(config.data_root))
    evaluator = SubnetEvaluator(
        supernet.to(device), data, config.split, calibration_images=config.calibration_images
    )
    bundles = [load_bundle(file.parent) for file in sorted(run.bundles.glob("[!.]*/subnet.json"))]
    drawn = space.sample(config.random_networks, np.random.default_rng(config.seed))
    configs = [bundle.info.config for bundle in bundles] + [space.config(genome) for genome in drawn]
    modules = [bundle.network for bundle in bundles]
    modules += [evaluator.network(choice).cpu() for choice in configs[len(bundles) :]]
    timed = {
        str(i): TimedNetwork(module, (space.in_channels, choice.resolution, choice.resolution))
        for i, (module, choice) in enumerate(zip(modules, configs, strict=True))
    }
    with progress_bar("timing") as progress:
        timings = measure_networks(timed, config.device, config.seed, progress)
    searches = {str(bundle.info.provenance.get("subnet")): bundle.path.name for bundle in bundles}
    found = {
        searches[f.stem]: SearchResult.load(f)
        for f in run.search("").parent.glob("*.json")
        if f.stem in searches
    }
    predicted_top1 = 100 * AccuracyPredictor.load(run.predictor, space)(space.genomes(configs))
    predicted_ms = LatencyTable.load(run.table(config.device.name)).estimator(space)(space.genomes(configs))
    networks = []
    for i, (module, choice) in enumerate(zip(modules, configs, strict=True)):
        name = bundles[i].path.name if i < len(bundles) else ""
        accuracy = 100 * top1(module.to(device), evaluator.batches(choice.resolution))
        cost, measured_ms = network_cost(module.specs), timings[str(i)].latency_ms
        estimates = predicted_top1[i], accuracy, predicted_ms[i], measured_ms
        networks.append(MeasuredNetwork(name, found.get(name), *estimates, cost.macs, cost.parameters))
    Console().print(report_table(networks, f"{config.run_name} on {config.device.name}", config.split))
    plot_tradeoff(networks, run.path / "pareto.png")
    print(f"figure: {run.path / 'pareto.png'}")
    return networks


if __name__ == "__main__":
    report_run()
