"""Measure all bundles of a run side by side and plot them, e.g. `ofa report run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_for_device import predictions_of

from latency_tables.table.device import DeviceSpec
from latency_tables.table.load import load_table
from latency_tables.table.shipped import find_table
from ofa.common.disk import check_writable
from ofa.common.progress import progress_bar, table_console
from ofa.common.text_settings import Name
from ofa.launch import command
from ofa.runs.config import RunConfig
from search.result.select import searches_by_subnet

if TYPE_CHECKING:
    from search.reports.run_report import ReportedNetwork


@dataclass(frozen=True, kw_only=True)
class ReportConfig(RunConfig):
    """Settings of `conf/report_run.yaml`."""

    device: DeviceSpec
    figure: Name
    trust: bool
    random_networks: int
    split: str
    calibration_images: int
    seed: int


@command("report_run", ReportConfig)
def report_run(config: ReportConfig) -> list[ReportedNetwork]:
    """Print the table, write the figure and return the networks."""
    from ofa.runs.reports import REPORTS_FOLDER

    with config.directory.locked("report"):
        check_writable(config.directory.path / REPORTS_FOLDER)
        return _report(config)


def _report(config: ReportConfig) -> list[ReportedNetwork]:
    from latency_tables.measuring.bundles import WEIGHTS
    from latency_tables.measuring.networks import TimedNetwork, measure_networks
    from ofa.evaluation.classes import shows_other_metrics
    from ofa.evaluation.evaluate import SubnetEvaluator
    from ofa.runs.networks import run_networks
    from ofa.runs.reports import REPORTS_FOLDER, report_path
    from ofa.runs.trained import open_run
    from predictors.load import load_predictor
    from search.reports.agreement import agreement_lines
    from search.reports.confusion import confusion_summary, save_confusion
    from search.reports.run_report import plot_tradeoff, report_networks, report_table

    run, directory, device = open_run(config), config.directory, config.device
    space = run.info.space
    table = load_table(find_table(directory, device, space))
    predictor = load_predictor(directory.predictor, space)
    evaluator = SubnetEvaluator(
        run.supernet, run.data, config.split, calibration_images=config.calibration_images
    )
    num_random, seed = config.random_networks, config.seed
    networks = run_networks(
        run, evaluator, config.split, num_random=num_random, seed=seed, trust=config.trust
    )
    timed_networks = {str(i): TimedNetwork(n.network, n.image_shape) for i, n in enumerate(networks)}
    with progress_bar("timing") as progress:
        timings = measure_networks(timed_networks, device, seed, progress)
    latency = table.estimator(space, device, max_table_error=float("inf"))
    num_images = run.data.size(config.split)
    rows = report_networks(
        networks,
        [timings[name].latency_ms for name in timed_networks],
        predictions=predictions_of(predictor, space),
        latency=latency,
        searches=searches_by_subnet(directory.path / "search", space),
        metric=predictor.metric,
    )
    title = f"{config.run_name} on {device.name}"
    figure = directory.path / config.figure
    plot_tradeoff(rows, figure, predictor.metric, space=space, latency=latency, num_images=num_images)
    others = evaluator.task.metrics[1:] if shows_other_metrics(run.data, config.split) else ()
    table_of_networks = report_table(
        rows,
        title,
        config.split,
        predictor.metric,
        num_images=num_images,
        other_metrics=others,
    )
    table_console().print(table_of_networks)
    for line in agreement_lines(rows, predictor.metric, config.split, num_images, table.target.error_percent):
        print(line)
    for network in networks:
        if network.name and network.confusion is not None:
            path = report_path(directory.bundles / network.name, WEIGHTS, run.data.info.name, config.split)
            save_confusion(network.confusion, path, f"{network.name}, {WEIGHTS}, {config.split} images")
            print(f"{network.name}: {confusion_summary(network.confusion)}")
    print(f"confusion matrices: {directory.path / REPORTS_FOLDER}\nfigure: {figure}")
    return rows


if __name__ == "__main__":
    report_run()
