"""Measure all bundles of a run side by side and plot them, e.g. `report_run.py run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from latency_tables.table.device import DeviceSpec
from latency_tables.table.shipped import find_table
from latency_tables.table.table import LatencyTable
from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig
from search.result.select import searches_by_subnet

if TYPE_CHECKING:
    from search.reports.run_report import ReportedNetwork


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
    from latency_tables.measuring.networks import TimedNetwork, measure_networks
    from ofa.evaluation.evaluate import SubnetEvaluator
    from ofa.modules.cost import module_cost
    from ofa.runs.networks import run_networks
    from ofa.runs.trained import open_run
    from predictors.load import load_predictor
    from search.reports.run_report import ReportedNetwork, plot_tradeoff, report_table

    run, directory, device = open_run(config), config.directory, config.device
    space, images = run.info.space, config.calibration_images
    table = LatencyTable.load(find_table(directory, device.name, space))
    estimate = table.estimator(space, device, max_table_error=float("inf"))
    evaluator = SubnetEvaluator(run.supernet, run.data, config.split, calibration_images=images)
    count, split = config.random_networks, config.split
    networks = run_networks(run, evaluator, split, num_random=count, seed=config.seed)
    timed_networks = {str(i): TimedNetwork(c.network, c.image_shape) for i, c in enumerate(networks)}
    with progress_bar("timing") as progress:
        timings = measure_networks(timed_networks, device, config.seed, progress)
    predictor = load_predictor(directory.predictor, space)
    searches, metric = searches_by_subnet(directory.path / "search", space), predictor.metric
    rows = []
    for i, network in enumerate(networks):
        cost, timing = module_cost(network.network, network.image_shape), timings[str(i)]
        genomes = None if network.config is None else space.genomes([network.config])
        rows.append(
            ReportedNetwork(
                name=network.name,
                search=searches.get(network.subnet),
                predicted=None if genomes is None else float(predictor(genomes)[0]),
                measured=network.top1,
                predicted_ms=None if genomes is None else float(estimate(genomes)[0]),
                measured_ms=timing.latency_ms,
                macs=cost.macs,
                parameters=cost.parameters,
            )
        )
    title = f"{config.run_name} on {device.name}"
    plot_tradeoff(rows, directory.path / "pareto.png", metric)
    Console().print(report_table(rows, title, config.split, metric))
    print(f"figure: {directory.path / 'pareto.png'}")
    return rows


if __name__ == "__main__":
    report_run()
