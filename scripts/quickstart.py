"""The whole pipeline on embedded digits: train, collect, fit, measure, search, export, report."""

from __future__ import annotations

import time
from dataclasses import dataclass

from build_latency_table import build_latency_table
from collect_accuracy import collect_accuracy
from export_subnet import export_subnet
from fit_predictor import fit_predictor
from report_run import report_run
from rich.console import Console
from search_for_device import search_for_device
from train_supernet import train_supernet

from ofa.launch import command
from ofa.runs.config import RunConfig

LIMIT_SHARES = (0.15, 0.35, 0.6)  # between the latencies of the smallest and the largest network


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig(RunConfig):
    """Settings of `conf/quickstart.yaml`."""

    subnets: int
    calibration_images: int
    table_rounds: int


@command("quickstart", QuickstartConfig)
def quickstart(config: QuickstartConfig) -> None:
    """Run every stage as its own command does; each goes on where an interrupted run stopped."""
    start_s, rule, run = time.perf_counter(), Console().rule, config.directory
    options = [f"run_name={config.run_name}", f"runs_dir={config.runs_dir}"]
    if config.threads is not None:
        options.append(f"threads={config.threads}")
    rounds, images = f"device.rounds={config.table_rounds}", f"calibration_images={config.calibration_images}"
    rule("1/6 train a supernet on the digits")
    train_supernet.run(*options)
    rule("2/6 evaluate sub-networks")
    collect_accuracy.run(*options, images, f"count={config.subnets}")
    rule("3/6 fit the accuracy predictor")
    fit_predictor.run(*options)
    rule("4/6 measure the latency table of this processor")
    space, table = config.trained_space, build_latency_table.run(*options, rounds, "device.processes=1")
    rule("5/6 search and export three sub-networks, and export the largest")
    names, (low, high) = ["largest"], table.estimator(space)(space.genomes([space.smallest, space.largest]))
    for share in LIMIT_SHARES:
        limit = f"limits.latency_ms={low + share * (high - low):.3g}"
        names.append(search_for_device.run(*options, limit, "search.generations=50")[0])
    for name in names:
        export_subnet.run(*options, f"subnet={name}", f"formats=[{_installed_formats()}]", images)
    rule("6/6 measure accuracy on the test split and latency end to end")
    report_run.run(*options, rounds, images)
    print(f"the whole pipeline took {time.perf_counter() - start_s:.0f} s; bundles: {run.bundles}")
    print(f"curves: tensorboard --logdir {run.path / 'tensorboard'}")


def _installed_formats() -> str:
    """Return PyTorch's own format, and ONNX where its packages are installed."""
    from ofa.export.formats import FORMATS
    from ofa.runtimes.base import missing_packages

    return ",".join(name for name in ("onnx", "pt2") if not missing_packages(FORMATS[name].packages))


if __name__ == "__main__":
    quickstart()
