"""The outcome of a run on one device: predicted against measured, as a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import ofa.common.files
from ofa.common.expectation import MetricValue
from ofa.common.metric import Metric, indistinct
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from search.population.fronts import non_dominated
from search.reports.predictions import Predictions
from search.result.result import SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

    from ofa.runs.networks import RunNetwork

MARKERS = {"searched": "*", "chosen": "s", "random": "o"}
NAME_SHIFTS = (7, -14, 21, -28)
"""Distances of names from their points in points of type, in the order they are tried."""


@dataclass(frozen=True)
class ReportedNetwork:
    """One network's predictions and measurements.

    Attributes:
        name: name of the network's bundle; empty for a random network.
        search: search that found the network; None for other and random networks.
        predicted: metric by the accuracy predictor; None without a space.
        measured: measured metric.
        predicted_ms: latency in milliseconds by the latency table; None without a space.
        measured_ms: latency in milliseconds, measured end to end on the device.
        macs: multiply-accumulates of one image.
        parameters: number of parameters.
        other_values: values of the task's other metrics by name, measured.
        expected: what the measured metric is judged by: the prediction, or for a network that was trained
            further what its card says; None without both.
    """

    name: str
    search: SearchResult | None
    predicted: float | None
    measured: float
    predicted_ms: float | None
    measured_ms: float
    macs: int
    parameters: int
    other_values: Mapping[str, float] = field(default_factory=dict)
    expected: MetricValue | None = None

    @property
    def group(self) -> str:
        """Return searched, chosen (another bundle) or random."""
        return "searched" if self.search else "chosen" if self.name else "random"


def report_networks(
    networks: Sequence[RunNetwork],
    latencies_ms: Sequence[float],
    *,
    predictions: Predictions,
    latency: Estimator,
    searches: Mapping[str, SearchResult],
    metric: Metric,
) -> list[ReportedNetwork]:
    """Return what is predicted of each network of a run beside what was measured.

    Args:
        networks: the networks, with their measured accuracies.
        latencies_ms: measured latency of each, milliseconds.
        predictions: the space, and the predictor with what it knows of its errors.
        latency: estimated milliseconds of populations.
        searches: search results by the name of the sub-network found.
        metric: metric of the predictions.
    """
    rows = []
    for network, measured_ms in zip(networks, latencies_ms, strict=True):
        genomes = None if network.config is None else predictions.genomes([network.config])
        value = None if network.config is None else predictions.value(network.config, metric)
        rows.append(
            ReportedNetwork(
                name=network.name,
                search=searches.get(network.subnet),
                predicted=None if value is None else value.value,
                measured=network.values[metric.name],
                predicted_ms=None if genomes is None else float(latency(genomes)[0]),
                measured_ms=measured_ms,
                macs=network.cost.macs,
                parameters=network.cost.parameters,
                other_values={name: each for name, each in network.values.items() if name != metric.name},
                expected=network.expected or value,
            )
        )
    return rows


def report_table(
    networks: Sequence[ReportedNetwork],
    title: str,
    split: str,
    metric: Metric,
    *,
    num_images: int = 0,
    other_metrics: Sequence[Metric] = (),
    has_unequal_classes: bool = True,
) -> Table:
    """Return a table with a row per named network, by latency, and one with the means of the random ones.

    The caption gives the common ratio of measured to predicted latencies: a change of the machine's speed
    since the table was measured shifts all of them equally.

    Args:
        networks: the networks.
        title: title of the table.
        split: name of the split that the accuracies were measured on.
        metric: metric of the predicted and measured values.
        num_images: number of images of the split, for the standard error; 0 if it is not known.
        other_metrics: further metrics for the caption.
        has_unequal_classes: whether the caption names unequal classes as the reason for these.
    """
    lines = [_caption(networks), *_error_texts(networks, metric, num_images, split)]
    reason = "classes are unequal; " if has_unequal_classes else ""
    lines += [f"{reason}{_other_text(networks, other)}" for other in other_metrics]
    table = Table(title=title, caption="\n".join(lines), box=None, pad_edge=False)
    error_header = [] if metric.standard_error(0.5, num_images) is None else ["±"]
    accuracy_headers = (f"{metric.heading}\npred.", f"{metric.heading}\n{split}", *error_header)
    headers = ("limit\nms", *accuracy_headers, "ms\npred.", "ms\nmeas.")
    table.add_column("network", no_wrap=True)
    for header in (*headers, "M\nMACs", "k\nparam."):
        table.add_column(header, justify="right", no_wrap=True)

    for network in sorted(
        networks, key=lambda n: n.measured_ms if n.predicted_ms is None else n.predicted_ms
    ):
        if network.name:
            limits = network.search.limits if network.search else ()
            limit = next((f"{bound.maximum:g}" for bound in limits if bound.name == "latency_ms"), "-")
            table.add_row(network.name, limit, *_figures([network], metric, num_images))
    random_networks = [network for network in networks if network.group == "random"]
    if random_networks:
        table.add_row(
            f"mean of {len(random_networks)} random", "-", *_figures(random_networks, metric, num_images)
        )
    return table


def _caption(networks: Sequence[ReportedNetwork]) -> str:
    shifts = [n.measured_ms / n.predicted_ms for n in networks if n.predicted_ms is not None]
    if not shifts:
        return "no latency was predicted"
    shift = float(np.median(shifts))
    return f"measured latency is {shift:.2f} x the predicted one, median of {len(shifts)} networks"


def _error_texts(
    networks: Sequence[ReportedNetwork], metric: Metric, num_images: int, split: str
) -> list[str]:
    """Return lines on the standard error: what ± is, and which networks are closer than that."""
    if metric.standard_error(0.5, num_images) is None:
        return []
    lines = [f"± is the standard error of {num_images} {split} images"]
    named = sorted((n for n in networks if n.name), key=lambda network: network.measured)
    close_names = [
        f"{first.name} and {second.name}"
        for first, second in pairwise(named)
        if indistinct(metric, [first.measured, second.measured], num_images)
    ]
    if close_names:
        lines.append(f"closer than that, so these images do not rank them: {'; '.join(close_names)}")
    return lines


def _other_text(networks: Sequence[ReportedNetwork], metric: Metric) -> str:
    """Return the values of a further metric of the networks that have a name."""
    values = {network.name: network.other_values.get(metric.name) for network in networks if network.name}
    texts = [f"{name} {metric.show(value)}" for name, value in values.items() if value is not None]
    return f"{metric.title}: {', '.join(texts)}"


def _figures(networks: Sequence[ReportedNetwork], metric: Metric, num_images: int) -> list[str]:
    """Return the cells of the means; a dash if a network lacks the value."""

    def mean(name: str, digits: int, scale: float = 1.0) -> str:
        values = [getattr(network, name) for network in networks]
        return "-" if None in values else f"{float(np.mean(values)) / scale:.{digits}f}"

    accuracies = [mean(name, 2, 1 / metric.scale) for name in ("predicted", "measured")]
    error = metric.standard_error(float(np.mean([n.measured for n in networks])), num_images)
    if error is not None:
        accuracies.append(f"{metric.scale * error:.1f}" if len(networks) == 1 else "-")
    latencies = [mean(name, 3) for name in ("predicted_ms", "measured_ms")]
    return [*accuracies, *latencies, mean("macs", 2, 1e6), mean("parameters", 0, 1e3)]


def plot_tradeoff(
    networks: Sequence[ReportedNetwork],
    path: Path,
    metric: Metric,
    *,
    space: SearchSpace,
    latency: Estimator,
    num_images: int = 0,
) -> None:
    """Write a PNG of the metric against latency (ms): predicted front of the searches, and measured networks.

    Args:
        networks: the networks.
        path: file of the figure.
        metric: metric of the values.
        space: space of the searches.
        latency: predicted milliseconds on the device, also of networks that were searched for other ones.
        num_images: number of images measured on, for the standard errors of named networks; 0: none.

    Raises:
        UserError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    searches = [network.search for network in networks if network.search]
    front = joint_front(searches, metric, space, latency)
    if len(front):
        axes.step(front[:, 0], front[:, 1], where="post", color="tab:blue", label="predicted front")
    for group, marker in MARKERS.items():
        points = [(n.measured_ms, metric.scale * n.measured) for n in networks if n.group == group]
        if points:
            size = 150 if group == "searched" else 40
            latencies, accuracies = zip(*points, strict=True)
            errors = [metric.standard_error(value / metric.scale, num_images) for value in accuracies]
            bars = [metric.scale * error for error in errors if error is not None]
            if bars and group != "random":
                axes.errorbar(latencies, accuracies, bars, fmt="none", ecolor="0.75", capsize=3, zorder=1)
            axes.scatter(latencies, accuracies, size, marker=marker, zorder=3, label=f"{group}, measured")
    axes.set_xlabel("latency [ms]")
    axes.set_ylabel(metric.label)
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.draw_without_rendering()  # So that points have their places.
    add_names(axes, {n.name: (n.measured_ms, metric.scale * n.measured) for n in networks if n.name})
    ofa.common.files.write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def add_names(axes: Axes, positions: Mapping[str, tuple[float, float]]) -> None:
    """Write names beside their points, above or below them, so that no two lie on each other if it can be."""
    boxes: list[Bbox] = []
    for name, position in sorted(positions.items(), key=lambda item: item[1]):
        for shift in NAME_SHIFTS:
            text = axes.annotate(name, position, xytext=(6, shift), textcoords="offset points", fontsize=8)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in boxes):
                break
            if shift != NAME_SHIFTS[-1]:
                text.remove()
        boxes.append(box)


def joint_front(
    searches: Sequence[SearchResult], metric: Metric, space: SearchSpace, latency: Estimator
) -> NDArray[np.float64]:
    """Return (latency, shown value of the metric) of the candidates on the joint front of all searches."""
    candidates = [candidate for search in searches for candidate in search.front]
    if not candidates:
        return np.empty((0, 2))
    costs = latency(space.genomes([candidate.config for candidate in candidates]))
    accuracies = np.array([candidate.accuracy for candidate in candidates])
    front_indices = non_dominated(costs, metric.sign * accuracies)
    return np.column_stack([costs[front_indices], metric.scale * accuracies[front_indices]])
