"""Error of latency tables of users' models, beside a line through the MACs.

For each model and engine the table of all sub-networks is built (an unfinished one goes on), and its
validation networks, which are not used for the calibration, are compared with its predictions and with those
of a * MACs + b, fitted to the same calibration networks. A row of graph_tables.csv is written as soon as its
table is done; rows that are there are not measured again. Bars: MAPE at most 3 %, Kendall tau at least 0.93,
better than the MACs line.

With --processor-time, runs are timed by the processor time of this process in place of the clock, which other
programs on a busy machine do not add to; everything is measured in one process then.

Run: python benchmarks/graph_tables.py [torchvision:resnet18 ...] [--engines onnx_runtime openvino]
     [--folder runs/graph_tables] [--side 96] [--minutes 6] [--networks 30] [--processor-time]
"""

from __future__ import annotations

import argparse
import csv
import time
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latency_tables.engines.base import Description, Engine, TimedRun
from latency_tables.engines.registry import create_engine
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.tables import measure
from latency_tables.table.affine_fit import fit_affine
from latency_tables.table.calibration import MeasuredNetwork
from latency_tables.table.device import DeviceSpec
from latency_tables.table.graph_table import GraphTable
from ofa.common.metrics import kendall_tau, mape
from ofa.common.progress import progress_bar
from ofa.graph import GraphSupernet, make_elastic
from ofa.graph.factory import load_model

MODELS = ("torchvision:resnet18", "torchvision:mobilenet_v2", "timm:mobilenetv3_small_100")
ENGINES = ("onnx_runtime", "openvino")

Row = dict[str, str | float]


class ProcessorTimeEngine(Engine):
    """Another engine, timed by the processor time of this process."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine that runs the programs."""
        self._engine = engine

    def describe(self) -> Description:
        """Return the facts of the engine, with this clock."""
        return {**self._engine.describe(), "clock": "process_time"}

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        """Return a run of the engine, timed by processor time."""
        prepared = self._engine.prepare(module, example)

        def run() -> float:
            start = time.process_time()
            prepared()
            return (time.process_time() - start) * 1e3

        return run

    def measuring(self) -> AbstractContextManager[None]:
        """Configure the process as the engine does."""
        return self._engine.measuring()


def elastic_model(name: str, side: int) -> GraphSupernet:
    """Return a model with weights drawn from seed 0, for images of this side, as a supernet."""
    torch.manual_seed(0)
    return make_elastic(load_model(name).eval(), torch.randn(2, 3, side, side), name=name.split(":")[1])


def measured_ms(networks: tuple[MeasuredNetwork, ...]) -> NDArray[np.float64]:
    """Return the measured latencies."""
    return np.array([network.measured_ms for network in networks])


def macs_predictions(supernet: GraphSupernet, table: GraphTable) -> NDArray[np.float64]:
    """Return the latencies (ms) of the validation networks by the line through MACs of the calibration."""
    assert table.validation is not None
    calibration, validation = (
        supernet.costs["macs"](
            supernet.space.genomes([supernet.space.read(network.config) for network in networks])
        )
        for networks in (table.calibration.networks, table.validation.networks)
    )
    scale, offset = fit_affine(calibration.tolist(), measured_ms(table.calibration.networks).tolist())
    return scale * validation + offset


def row_of(name: str, engine: str, arguments: argparse.Namespace) -> Row:
    """Build the table of a model for an engine, and return its row."""
    side, uses_processor_time = arguments.side, arguments.processor_time
    supernet = elastic_model(name, side)
    device = DeviceSpec(
        f"{engine}_fp32_1",
        engine,
        min_rounds=4,
        minutes=arguments.minutes,
        processes=1 if uses_processor_time else 2,
    )
    path = arguments.folder / f"{supernet.space.name}_{engine}_{side}.json"
    start = time.monotonic()
    with progress_bar(f"{name} in {engine}") as progress:
        table = measure(
            GraphNetworks(supernet, supernet.space),
            device,
            path,
            progress=progress,
            num_validation=arguments.networks,
            engine=ProcessorTimeEngine(create_engine(device)) if uses_processor_time else None,
        )
    assert isinstance(table, GraphTable) and table.validation is not None
    measured, by_macs = measured_ms(table.validation.networks), macs_predictions(supernet, table)
    return {
        "model": name,
        "engine": engine,
        "side": side,
        "mape_percent": round(table.validation.mape_percent, 2),
        "max_error_percent": round(table.validation.max_error_percent, 1),
        "tau": round(table.validation.kendall_tau, 3),
        "macs_mape_percent": round(mape(by_macs, measured), 2),
        "macs_tau": round(kendall_tau(by_macs, measured), 3),
        "scale": round(table.calibration.scale, 3),
        "offset_ms": round(table.calibration.offset_ms, 3),
        "fastest_ms": round(float(measured.min()), 3),
        "slowest_ms": round(float(measured.max()), 3),
        "programs": len(table.entries),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "repeatability_percent": round(table.validation.repeatability_percent or float("nan"), 2),
        "clock": table.engine["clock"],
    }


def main() -> None:
    """Write a row for each model and engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--folder", type=Path, default=Path("runs/graph_tables"))
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / "graph_tables.csv"
    rows: list[Row] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    done = {(row["model"], row["engine"], str(row["side"])) for row in rows}
    for name in arguments.models:
        for engine in arguments.engines:
            if (name, engine, str(arguments.side)) in done:
                continue
            rows.append(row_of(name, engine, arguments))
            print(rows[-1], flush=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[-1]))
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
