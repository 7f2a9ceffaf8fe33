"""Measure all bundles of a run side by side and plot them, e.g. `report_run.py run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from latency_tables.measuring.networks import TimedNetwork, measure_networks
from latency_tables.table.device import DeviceSpec
from latency_tables.table.shipped import find_table
from latency_tables.table.table import LatencyTable
from ofa.architecture.cost import network_cost
from ofa.common.progress import progress_bar
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.runs.networks import run_networks
from ofa.runs.trained import open_run
from predictors.load import load_predictor
from search.reports.run_report import ReportedNetwork, plot_tradeoff, report_table
from search.result.select import searches_by_subnet


@dataclass(frozen=True, kw_only=True)
class ReportConfig(RunConfig):
    """Settings of `conf/report_run.yaml`."""

    device: DeviceSpec
    random_networks: int
    split: str
    calibration_images: int
    seed: int


@command("report_run", ReportConfig)
def report_run(config: ReportConfig) -> list[ReportedNetwork]:
    """Print the table, write `pareto.png` and return the networks."""
    run, directory, device = open_run(config), config.directory, config.device
    space, images = run.info.space, config.calibration_images
    table = LatencyTable.load(find_table(directory, device.name, space))
    estimate = table.estimator(space, device, max_table_error=float("inf"))
    evaluator = SubnetEvaluator(run.supernet, run.data, config.split, calibration_images=images)
    found = run_networks(run, evaluator, config.random_networks, config.seed)
    genomes = space.genomes([c.config for c in found])
    timed = {str(i): TimedNetwork(c.network, c.network.image_shape) for i, c in enumerate(found)}
    with progress_bar("timing") as progress:
        timings = measure_networks(timed, device, config.seed, progress)
    searches = searches_by_subnet(directory.path / "search", run.info.space)
    predictor = load_predictor(directory.predictor, space)
    accuracy, latency = predictor(genomes), estimate(genomes)
    networks = []
    for i, candidate in enumerate(found):
        cost, measured_ms = network_cost(candidate.network.specs), timings[str(i)].latency_ms
        numbers = accuracy[i], candidate.top1, latency[i], measured_ms, cost.macs, cost.parameters
        networks.append(ReportedNetwork(candidate.name, searches.get(candidate.subnet), *numbers))
    metric, title = predictor.metric, f"{config.run_name} on {device.name}"
    plot_tradeoff(networks, directory.path / "pareto.png", metric)
    Console().print(report_table(networks, title, config.split, metric))
    print(f"figure: {directory.path / 'pareto.png'}")
    return networks


if __name__ == "__main__":
    report_run()
