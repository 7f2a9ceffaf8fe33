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
from predictors.load import load_predictor
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
    entries = [(b.path.name, b.info.provenance.get("subnet"), b.info.config, b.network) for b in bundles]
    entries += [("", "", c, evaluator.network(c).cpu()) for c in map(space.config, drawn)]
    genomes = space.genomes([choice for _, _, choice, _ in entries])
    timed = {str(i): TimedNetwork(entry[3], entry[3].image_shape) for i, entry in enumerate(entries)}
    with progress_bar("timing") as progress:
        timings = measure_networks(timed, device, config.seed, progress)
    searches = searches_by_subnet(directory.path / "search")
    accuracy = 100 * load_predictor(directory.predictor, space)(genomes)
    latency = LatencyTable.load(directory.table(device.name)).estimator(space)(genomes)
    networks = []
    for i, (name, subnet, choice, module) in enumerate(entries):
        measured = 100 * top1(module.to(run.device), evaluator.batches(choice.resolution))
        cost, measured_ms = network_cost(module.specs), timings[str(i)].latency_ms
        numbers = accuracy[i], measured, latency[i], measured_ms, cost.macs, cost.parameters
        networks.append(MeasuredNetwork(name, searches.get(str(subnet)), *numbers))
    Console().print(report_table(networks, f"{config.run_name} on {device.name}", config.split))
    plot_tradeoff(networks, directory.path / "pareto.png")
    print(f"figure: {directory.path / 'pareto.png'}")
    return networks


if __name__ == "__main__":
    report_run()
