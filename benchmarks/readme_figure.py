"""The figure of the README: a space's best networks for two engines, and what each is worth in the other.

The space is mobilenet_v3 at 224 pixels. The accuracy is a predictor fitted on 1,081 measured ImageNet
accuracies (see predictor_quality.py), the latencies are two tables that come with the project. One search
per engine finds its whole front.

Run: python benchmarks/readme_figure.py [--tables cascadelake cascadelake_ncnn] [--output FILE.png]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from predictor_quality import ROOT, load_measurements

from latency_tables.table.shipped import DATA
from latency_tables.table.table import LatencyTable
from ofa.common.threads import blas_threads
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from predictors.fitting import fit_mlp
from predictors.settings import FitSettings
from search.algorithms.nsga2 import ParetoSettings, search_front
from search.limits.limit import Limit

RESOLUTION = 224
NUM_RANDOM = 1500
MARKED_TOP1 = 75.0
"""Top-1 in percent at which the figure compares the two fronts."""
WHITE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
"""Background of a text that stands on points."""


@dataclass(frozen=True)
class Engine:
    """How the figure calls an engine, and the colour of what is found for it."""

    name: str
    colour: str


NAMES = {
    "cascadelake": "PyTorch",
    "cascadelake_ncnn": "ncnn",
    "cascadelake_onnx": "ONNX Runtime",
    "cascadelake_onnx_int8": "ONNX Runtime int8",
    "cascadelake_openvino": "OpenVINO",
    "cascadelake_openvino_int8": "OpenVINO int8",
}
"""What the figure calls the engine of each table that comes with the project."""
COLOURS = ("#c8553d", "#2a6f97")


@dataclass(frozen=True)
class Points:
    """Networks with their latency in one engine and their predicted top-1 in percent, sorted by latency."""

    latency_ms: NDArray[np.float64]
    top1: NDArray[np.float64]

    @classmethod
    def of(cls, genomes: Genomes, latency: Estimator, accuracy: Estimator) -> Points:
        """Price a population."""
        latency_ms = latency(genomes)
        order = np.argsort(latency_ms)
        return cls(latency_ms[order], 100 * accuracy(genomes)[order])

    def latency_at(self, top1: float) -> float:
        """Return the latency of the fastest network with at least this top-1."""
        return float(self.latency_ms[self.top1 >= top1].min())

    def top1_at(self, latency_ms: float) -> float:
        """Return the top-1 of the most accurate network within this latency."""
        return float(self.top1[self.latency_ms <= latency_ms].max())


def front_of(space: StagedSpace, accuracy: Estimator, latency: Estimator, name: str) -> Genomes:
    """Return the networks of the whole front for one engine; print how long the search took."""
    limits = [Limit("latency_ms", latency, float("inf"), "ms")]
    start = time.perf_counter()
    result = search_front(space, accuracy, limits, ParetoSettings(), np.random.default_rng(0))
    seconds = time.perf_counter() - start
    print(f"{name}: {len(result.front)} networks, {result.evaluations} candidates, {seconds:.1f} s")
    return space.genomes([candidate.config for candidate in result.front])


def extra_percent(own: Points, other: Points) -> NDArray[np.float64]:
    """Return by how much longer each of `other` takes than the network of `own` that is as accurate."""
    within = other.top1 <= own.top1.max()
    pairs = zip(other.latency_ms[within], other.top1[within], strict=True)
    return np.array([100 * (latency_ms / own.latency_at(top1) - 1) for latency_ms, top1 in pairs])


def draw(axes: Axes, engine: Engine, random: Points, own: Points, other: tuple[Engine, Points]) -> None:
    """Draw random networks, the front found here, and the front found for the other engine, in one panel."""
    other_engine, others = other
    axes.scatter(random.latency_ms, random.top1, s=5, color="0.82", linewidths=0, label="random networks")
    axes.plot(
        others.latency_ms,
        others.top1,
        ".",
        markersize=3,
        color=other_engine.colour,
        label=f"best networks for {other_engine.name}, run here",
    )
    axes.plot(
        own.latency_ms, own.top1, color=engine.colour, linewidth=2.4, label=f"best networks for {engine.name}"
    )
    _mark_difference(axes, own, other_engine.name, others)
    _mark_gain(axes, own, random)
    axes.set_title(f"Run by {engine.name}", fontsize=12.5, color=engine.colour, fontweight="bold")
    axes.set_xlabel("latency of one image [ms]")
    axes.set_xlim(0.97 * own.latency_ms.min(), 1.02 * own.latency_ms.max())
    axes.set_ylim(70.8, 78.6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=9.5, framealpha=0.95, markerscale=2)


def _mark_difference(axes: Axes, own: Points, other: str, others: Points) -> None:
    """Mark how much longer the other engine's networks of the accuracy `MARKED_TOP1` take, in the median."""
    here = own.latency_at(MARKED_TOP1)
    there = float(np.median(others.latency_ms[np.abs(others.top1 - MARKED_TOP1) < 0.15]))
    axes.plot([here, there], [MARKED_TOP1] * 2, "|-", color="black", linewidth=1.6, markersize=10)
    text = f"of equal accuracy, the network\nfound for {other} takes {100 * (there / here - 1):.0f} % longer"
    arrow = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.8}
    middle, corner = ((here + there) / 2, MARKED_TOP1), (0.02, 0.99)
    axes.annotate(text, middle, corner, textcoords="axes fraction", fontsize=9.5, va="top", arrowprops=arrow)


def _mark_gain(axes: Axes, own: Points, random: Points) -> None:
    """Mark how much more accurate the own network is than random ones of the usual latency, in the median."""
    usual = float(np.median(random.latency_ms))
    near = np.abs(random.latency_ms / usual - 1) < 0.02
    low, high = float(np.median(random.top1[near])), own.top1_at(usual)
    axes.annotate(
        "", (usual, high), (usual, low), arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0}
    )
    text, middle = f"+{high - low:.1f} points over random\nnetworks as fast", (usual, (low + high) / 2)
    axes.annotate(text, middle, (7, -8), textcoords="offset points", fontsize=9.5, bbox=WHITE)


def plot(
    engines: Sequence[Engine], random: Sequence[Points], fronts: Sequence[Sequence[Points]], path: Path
) -> None:
    """Write the figure; `fronts[i][j]` are the networks found for engine j, as engine i runs them."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained", facecolor="white")
    panels = figure.subplots(1, 2, sharey=True)
    for here, axes in enumerate(panels):
        there = 1 - here
        draw(axes, engines[here], random[here], fronts[here][here], (engines[there], fronts[here][there]))
    panels[0].set_ylabel("ImageNet top-1, predicted [%]")
    figure.savefig(path, dpi=170)


@blas_threads(1)
def main() -> None:
    """Search both fronts, print what they are worth in the other engine, and draw them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs=2, choices=NAMES, default=["cascadelake", "cascadelake_ncnn"])
    parser.add_argument("--output", type=Path, default=ROOT / "docs/figures/front.png")
    arguments = parser.parse_args()
    whole, genomes, top1 = load_measurements()
    space = whole.restrict({"resolution": [RESOLUTION]})
    accuracy = fit_mlp(space, genomes, top1, FitSettings(), 0)
    engines = [Engine(NAMES[table], colour) for table, colour in zip(arguments.tables, COLOURS, strict=True)]
    tables = [LatencyTable.load(DATA / space.name / f"{table}.json") for table in arguments.tables]
    latencies = [table.estimator(space) for table in tables]
    found = [
        front_of(space, accuracy, latency, engine.name)
        for latency, engine in zip(latencies, engines, strict=True)
    ]
    usual = space.sample(NUM_RANDOM, np.random.default_rng(0))
    random = [Points.of(usual, latency, accuracy) for latency in latencies]
    fronts = [[Points.of(networks, latency, accuracy) for networks in found] for latency in latencies]
    for here, there in ((0, 1), (1, 0)):
        extra = extra_percent(fronts[here][here], fronts[here][there])
        names = f"{engines[there].name}'s networks run by {engines[here].name}"
        print(f"{names}: {np.median(extra):.1f} % slower in the median, {extra.max():.1f} % at worst")
    plot(engines, random, fronts, arguments.output)


if __name__ == "__main__":
    main()
