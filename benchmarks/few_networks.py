"""Latency tables from ten whole networks: errors by the number of other tables that they are made with.

Each table of the space that comes with the project is a target. Its measured networks at the resolutions
that all tables cover are split: ten are chosen among 22 random ones, the error is measured on all others,
several times. Compared are a line through MACs, an affine map of one other table, ten networks with no other
table, with one (the mean over the others) and with all others, each fitted to the ten networks it would
choose; and the target's own table of measured layers. The stated error is that of left-out networks among
the ten.

With --phones DIR the targets are the published tables DIR/NAME/224_lookup_table.yaml of the Note10, the
Ultra96 and the Pixel 1: latencies of 1,000 random networks are sums of their entries.

With --refit each table is the source of itself: its calibration networks and 16 others weight its layers.

Run: python benchmarks/few_networks.py [--space mobilenet_v3] [--networks 10] [--candidates 22] [--splits 5]
     [--phones DIR | --refit]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latency_tables.measuring.plan import NUM_VALIDATION
from latency_tables.published.table import import_table, read_published_tables
from latency_tables.table.affine_fit import fit_affine
from latency_tables.table.device import DeviceSpec
from latency_tables.table.regression import Values, fit_latencies, left_out_ms
from latency_tables.table.shipped import DATA
from latency_tables.table.table import LatencyTable
from latency_tables.transfer.choice import informative_rows
from latency_tables.transfer.columns import Columns
from latency_tables.transfer.sources import Sources
from ofa.common.config import build
from ofa.common.metrics import kendall_tau, mape
from ofa.launch import compose_group
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

PHONE_RESOLUTION = 224
NUM_PHONE_NETWORKS = 1000


@dataclasses.dataclass(frozen=True)
class Score:
    """MAPE and largest error in percent, rank correlation, and the stated MAPE (NaN without one)."""

    mape: float
    worst: float
    tau: float
    stated: float = float("nan")

    @classmethod
    def of(cls, predicted: Values, measured: Values, stated: float = float("nan")) -> Score:
        """Compare predictions (n,) with measurements (n,)."""
        worst = float(100 * np.max(np.abs(predicted / measured - 1)))
        return cls(mape(predicted, measured), worst, kendall_tau(predicted, measured), stated)

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Return the mean of each number."""
        return cls(*np.mean([dataclasses.astuple(score) for score in scores], axis=0).tolist())

    def __str__(self) -> str:
        stated = "" if np.isnan(self.stated) else f"{self.stated:.1f} %"
        return f"{self.mape:.1f} % | {self.worst:.1f} % | {self.tau:.3f} | {stated}"


@dataclasses.dataclass(frozen=True)
class Target:
    """Networks of a device with their latencies (ms), and the score of its own table of layers, if known."""

    genomes: Genomes
    latencies_ms: Values
    own: Score | None = None

    @classmethod
    def of_measured(cls, table: LatencyTable, space: StagedSpace) -> Target:
        """Return the measured networks of a table that belong to the (restricted) space."""
        assert table.validation is not None
        fitted, validated = (
            [n for n in networks if space.contains(SubnetConfig.from_dict(n.config))]
            for networks in (table.calibration.networks, table.validation.networks)
        )
        predicted, measured = (
            np.array([getattr(n, name) for n in validated]) for name in ("predicted_ms", "measured_ms")
        )
        configs = [SubnetConfig.from_dict(network.config) for network in (*fitted, *validated)]
        latencies_ms = np.array([network.measured_ms for network in (*fitted, *validated)])
        return cls(space.genomes(configs), latencies_ms, Score.of(predicted, measured))

    def scores(self, space: StagedSpace, others: Sequence[LatencyTable], effort: Effort) -> dict[str, Score]:
        """Return the mean scores of each way by its label."""
        ways = [("MACs line", Columns(space), True), ("no table", Columns(space), False)]
        for table in others:
            columns = Columns(space, Sources((table,)))
            ways += [("affine map of one table", columns, True), ("one table", columns, False)]
        if len(others) > 1:
            ways.append(("all other tables", Columns(space, Sources(tuple(others))), False))
        scores: dict[str, list[Score]] = {}
        for label, columns, is_line in ways:
            matrix = columns.matrix(self.genomes)
            for split in range(effort.splits):
                candidates = np.random.default_rng(split).permutation(len(matrix))[: effort.candidates]
                indices = informative_rows(matrix[candidates], columns.num_free, effort.networks)
                score = self.score(matrix, columns.num_free, candidates[indices], is_line)
                scores.setdefault(label, []).append(score)
        if self.own is not None:
            scores["its own table of layers"] = [self.own]
        return {label: Score.mean(values) for label, values in scores.items()}

    def score(self, columns: Values, num_free: int, chosen: NDArray[np.intp], is_line: bool) -> Score:
        """Return the score of a fit to the chosen networks on the others."""
        rest = np.setdiff1d(np.arange(len(columns)), chosen)
        few, few_ms, rest_ms = columns[chosen], self.latencies_ms[chosen], self.latencies_ms[rest]
        if is_line:
            scale, offset = fit_affine(few[:, 0].tolist(), few_ms.tolist(), float(columns[:, 0].min()))
            return Score.of(scale * columns[rest, 0] + offset, rest_ms)
        stated = mape(left_out_ms(few, num_free, few_ms), few_ms)
        return Score.of(fit_latencies(few, num_free, few_ms).predict(columns[rest]), rest_ms, stated)


@dataclasses.dataclass(frozen=True)
class Effort:
    """Number of measured networks, of the candidates that they are chosen among, and of splits."""

    networks: int
    candidates: int
    splits: int


def refitted_scores(space: StagedSpace, table: LatencyTable, splits: int) -> dict[str, Score]:
    """Return the scores of a table, and of a line and weights that 22 of its own networks give."""
    own_space = space.restrict({"resolution": table.covered_resolutions(space)})
    target = Target.of_measured(table, own_space)
    matrix = Columns(own_space, Sources((table,))).matrix(target.genomes)
    num_fitted = len(table.calibration.networks)
    scores: dict[str, list[Score]] = {"table as measured": [target.own] if target.own else []}
    for split in range(splits):
        order = num_fitted + np.random.default_rng(split).permutation(len(matrix) - num_fitted)
        chosen = np.concatenate([np.arange(num_fitted), order[:NUM_VALIDATION]])
        for label, is_line in (("line through 22 networks", True), ("weighted anew", False)):
            scores.setdefault(label, []).append(target.score(matrix, 1, chosen, is_line))
    return {label: Score.mean(values) for label, values in scores.items()}


def print_rows(name: str, scores: dict[str, Score]) -> None:
    """Print a row of the table for each way."""
    for label, score in scores.items():
        print(f"| {name} | {label} | {score} |", flush=True)


def print_shipped(space: StagedSpace, effort: Effort, is_refit: bool) -> None:
    """Print the scores of the device of each shipped table, and their means."""
    tables = [LatencyTable.load(path) for path in sorted(DATA.glob(f"{space.name}/*.json"))]
    shared_space = Sources(tuple(tables)).covered_space(space)
    rows = []
    for table in tables:
        if is_refit:
            rows.append(refitted_scores(space, table, effort.splits))
        else:
            others = [other for other in tables if other is not table]
            rows.append(Target.of_measured(table, shared_space).scores(shared_space, others, effort))
        print_rows(table.device.name, rows[-1])
    print_rows("mean", {label: Score.mean([row[label] for row in rows]) for label in rows[0]})


@dataclasses.dataclass(frozen=True)
class Phone:
    """A published table: its space, and milliseconds of layers that it does not run by themselves.

    Attributes:
        name: name of the device and of the folder of its files.
        space: name of the space in conf/space.
        width: width multiplier of the space.
        choices: choices of the space that the table covers.
        missing_ms: milliseconds by kind of layer.
    """

    name: str
    space: str
    width: float
    choices: dict[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    missing_ms: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def covered_space(self) -> StagedSpace:
        """The space that the table covers."""
        values = compose_group("space", self.space) | {"width_multiplier": self.width}
        return build(StagedSpace, values).restrict({"resolution": [PHONE_RESOLUTION], **self.choices})

    def table(self, folder: Path) -> LatencyTable:
        """Return the table of the files in the phone's folder."""
        device = build(DeviceSpec, compose_group("device", "imported") | {"name": self.name})
        published = read_published_tables([folder / self.name / f"{PHONE_RESOLUTION}_lookup_table.yaml"])
        return import_table(self.covered_space, published, device, self.missing_ms)


PHONES = (
    Phone("note10", "mobilenet_v3", 1.2),
    Phone("ultra96", "mobilenet_v3", 1.2, missing_ms={"AvgPool2D": 0.0}),
    Phone("pixel1", "proxyless_nas", 1.0, {"expand_ratio": [3, 6]}),
)


def phone_targets(folder: Path, effort: Effort) -> None:
    """Print the scores of phones, whose networks take the sums of published entries."""
    tables = [phone.table(folder) for phone in PHONES]
    for phone, table in zip(PHONES, tables, strict=True):
        space = phone.covered_space
        others = [
            other
            for other in tables
            if other is not table and other.space_fingerprint == table.space_fingerprint
        ]
        genomes = space.sample(NUM_PHONE_NETWORKS, np.random.default_rng(0))
        print_rows(phone.name, Target(genomes, table.estimator(space)(genomes)).scores(space, others, effort))


def main() -> None:
    """Compare for every target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=22)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--phones", type=Path)
    parser.add_argument("--refit", action="store_true")
    arguments = parser.parse_args()
    effort = Effort(arguments.networks, arguments.candidates, arguments.splits)
    print("| device | way | MAPE | worst | tau | stated MAPE |\n|---|---|---|---|---|---|")
    if arguments.phones:
        phone_targets(arguments.phones, effort)
        return
    print_shipped(build(StagedSpace, compose_group("space", arguments.space)), effort, arguments.refit)


if __name__ == "__main__":
    main()
