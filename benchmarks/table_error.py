"""Error of latency tables: predictions against measurements of networks that the tables do not use.

For each engine a table of the space is built, or an existing one used. Its validation networks, random ones
that are not used for the calibration, are measured in the same rounds; they are predicted by the table and by
a * MACs + b fitted to the same calibration networks. --twice builds a second table with another seed and
prints the difference of the two tables' estimates for 1,000 networks; --compare does that for two existing
tables. The folder gets a figure per engine and errors.json. Bars for one thread and the space mobilenet_v3 at
160 to 224 pixels: MAPE at most 3 %, largest error at most 12 %, Kendall tau at least 0.93; median difference
of two tables' estimates at most 4 %.

Run: python benchmarks/table_error.py [ENGINE[:PRECISION] ...] [--folder runs/table_error]
     [--space mobilenet_v3] [--resolutions 160 176 192 208 224] [--networks 40] [--threads 1] [--minutes 14]
     [--method sandwich] [--twice] [--compare TABLE.json TABLE.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from latency_tables.engines.registry import create_engine
from latency_tables.measuring.tables import measure
from latency_tables.table.affine_fit import fit_affine
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from ofa.architecture.cost import network_cost
from ofa.architecture.lowering import lower
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.metrics import kendall_tau, mape
from ofa.common.progress import progress_bar
from ofa.launch import compose_group
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

ENGINES = ("pytorch", "onnx_runtime", "openvino", "openvino:bf16", "ncnn")
_BASES = {
    "pytorch": "my_cpu",
    "onnx_runtime": "my_cpu_onnx",
    "openvino": "my_cpu_openvino",
    "ncnn": "my_cpu_ncnn",
}

Values = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean and largest absolute error of predictions in percent, and the rank correlation."""

    mape: float
    worst: float
    tau: float

    @classmethod
    def of(cls, predicted: Values, measured: Values) -> Errors:
        """Compare predictions (n,) with measurements (n,)."""
        worst = float(100 * np.max(np.abs(predicted - measured) / measured))
        return cls(mape(predicted, measured), worst, kendall_tau(predicted, measured))

    def __str__(self) -> str:
        return f"MAPE {self.mape:5.2f} %  max {self.worst:5.1f} %  tau {self.tau:.3f}"


def device_of(engine: str, threads: int, minutes: float | None, method: str | None) -> DeviceSpec:
    """Return the device for "ENGINE" or "ENGINE:PRECISION", with the effort in its file in conf/device."""
    name, _, precision = engine.partition(":")
    values = compose_group("device", _BASES.get(name, "my_cpu_onnx"))
    values |= {"name": f"{name}_{precision or 'fp32'}_{threads}", "engine": name, "threads": threads}
    values |= {"precision": precision} if precision else {}
    values |= {"minutes": minutes} if minutes else {}
    values |= {"method": method} if method else {}
    return build(DeviceSpec, values)


def macs_of(space: StagedSpace, configs: Sequence[SubnetConfig]) -> Values:
    """Return the multiply-accumulates of networks, in millions."""
    return np.array([network_cost(lower(space, config)).macs / 1e6 for config in configs])


def predicted_by_macs(space: StagedSpace, table: LatencyTable, configs: Sequence[SubnetConfig]) -> Values:
    """Return the latencies (ms) by the line through the MACs of the table's calibration networks."""
    fitted = [SubnetConfig.from_dict(network.config) for network in table.calibration.networks]
    measured = [network.measured_ms for network in table.calibration.networks]
    scale, offset = fit_affine(list(macs_of(space, fitted)), measured)
    return scale * macs_of(space, configs) + offset


def table_of(space: StagedSpace, device: DeviceSpec, path: Path, seed: int, count: int) -> LatencyTable:
    """Return the table at `path`, built if it is missing."""
    if path.is_file():
        print(f"{path} already exists; delete it to build it again")
    with progress_bar(f"{device.name}, seed {seed}") as progress:
        table = measure(space, device, path, seed=seed, progress=progress, num_validation=count)
    assert isinstance(table, LatencyTable)
    floored = sum(entry.latency_ms <= 1e-6 for entry in table.entries.values())
    scale, offset = table.calibration.scale, table.calibration.offset_ms
    weighted = " with their work weighted" if table.calibration.ms_per_million else ""
    runs = np.median([entry.count or 0 for entry in table.entries.values()])
    print(
        f"{device.name}: {len(table.entries)} layers ({floored} cost nothing), {runs:.0f} runs each, "
        f"{scale:.3f} * sum{weighted} + {offset:.3f} ms; {table.error_text}"
    )
    return table


def difference_percent(space: StagedSpace, first: LatencyTable, second: LatencyTable) -> float:
    """Return the median relative difference of the two tables' estimates for 1,000 networks."""
    genomes = space.sample(1000, np.random.default_rng(0))
    estimates = [table.estimator(space, max_table_error=np.inf)(genomes) for table in (first, second)]
    return float(100 * np.median(np.abs(estimates[0] - estimates[1]) / np.mean(estimates, axis=0)))


def print_difference(space: StagedSpace, paths: Sequence[Path]) -> None:
    """Print how much two tables differ at the resolutions that both cover."""
    tables = [LatencyTable.load(path) for path in paths]
    both = set.intersection(*(set(table.covered_resolutions(space)) for table in tables))
    difference = difference_percent(space.restrict({"resolution": sorted(both)}), *tables)
    print(f"{difference:.2f} % in the median, at {sorted(both)} px")


def plot(path: Path, title: str, measured: Values, predictions: dict[str, Values]) -> None:
    """Draw predictions against measurements."""
    figure, axes = plt.subplots(figsize=(5, 5))
    ends = [0.95 * measured.min(), 1.05 * measured.max()]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set_aspect("equal")
    for (label, predicted), marker in zip(predictions.items(), ("o", "x"), strict=True):
        axes.plot(
            measured, predicted, marker, markersize=4, label=f"{label}: {Errors.of(predicted, measured)}"
        )
    axes.set(xlabel="measured (ms)", ylabel="predicted (ms)", title=title, xlim=ends, ylim=ends)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(
    space: StagedSpace, device: DeviceSpec, folder: Path, count: int, twice: bool
) -> dict[str, object]:
    """Build, measure, print and plot for one engine; return the numbers."""
    table = table_of(space, device, folder / f"{device.name}.json", 0, count)
    assert table.validation is not None
    networks = table.validation.networks
    measured = np.array([network.measured_ms for network in networks])
    by_table = np.array([network.predicted_ms for network in networks])
    by_macs = predicted_by_macs(space, table, [SubnetConfig.from_dict(n.config) for n in networks])
    predictions = {"table": by_table, "a*MACs + b": by_macs}
    for label, predicted in predictions.items():
        print(f"{device.name:22} {label:10} {Errors.of(predicted, measured)}", flush=True)
    threads = f"{device.threads} thread" + ("s" if device.threads > 1 else "")
    title = f"{table.engine['engine']} {device.precision}, {threads}: {space.name}"
    plot(folder / f"{device.name}.png", title, measured, predictions)
    numbers: dict[str, object] = {
        "measured_ms": [float(measured.min()), float(measured.max())],
        **{label: dataclasses.asdict(Errors.of(p, measured)) for label, p in predictions.items()},
        "floor_percent": table.validation.repeatability_percent,
    }
    if twice:
        second = table_of(space, device, folder / f"{device.name}_second.json", 1, count)
        numbers["difference_percent"] = difference_percent(space, table, second)
        print(f"{device.name:22} two tables differ by {numbers['difference_percent']:.2f} % in the median")
    return numbers


def main() -> None:
    """Report for every engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", nargs="*", metavar="ENGINE[:PRECISION]")
    parser.add_argument("--folder", type=Path, default=Path("runs/table_error"))
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--resolutions", type=int, nargs="+")
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--method")
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--compare", type=Path, nargs=2, metavar="TABLE")
    arguments = parser.parse_args()
    space = build(StagedSpace, compose_group("space", arguments.space))
    if arguments.compare:
        print_difference(space, arguments.compare)
        return
    wanted = (160, 176, 192, 208, 224)
    resolutions = arguments.resolutions or [r for r in wanted if r in space.resolutions] or None
    space = space.restrict({"resolution": resolutions})
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {}
    for engine in arguments.engines or ENGINES:
        device = device_of(engine, arguments.threads, arguments.minutes, arguments.method)
        try:
            create_engine(device)
        except UserError as error:
            if arguments.engines:
                raise
            print(f"{engine} is skipped: {error}")
            continue
        found[device.name] = report(space, device, folder, arguments.networks, arguments.twice)
        (folder / "errors.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
