"""Whether what was predicted of a run's networks agrees with what was measured, as lines for the user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa.common.expectation import NUM_ERRORS, agreement_line, agrees, measured_value
from ofa.common.latency_target import deviation_text, is_within_error
from ofa.common.metric import Metric
from search.reports.run_report import ReportedNetwork


def agreement_lines(
    networks: Sequence[ReportedNetwork],
    metric: Metric,
    split: str,
    num_images: int,
    error_percent: float | None = None,
) -> list[str]:
    """Return how many named networks were predicted within the errors, and a line for each other one.

    A last line compares the networks of searches with the random ones, as measured.

    Args:
        networks: the networks; random ones have no name.
        metric: metric of the predicted and measured values.
        split: split that the networks were measured on.
        num_images: number of its images; 0 if it is not known.
        error_percent: mean error of the latency table on whole networks, percent; None if it is not known.
    """
    named = [network for network in networks if network.name]
    return [
        *_metric_lines(named, metric, split, num_images),
        *_latency_lines(named, error_percent),
        *_gain_lines(networks, metric, num_images),
    ]


def _metric_lines(
    networks: Sequence[ReportedNetwork], metric: Metric, split: str, num_images: int
) -> list[str]:
    judged, lines = 0, []
    for network in networks:
        if network.expected is None:
            continue
        judged += 1
        measured = measured_value(metric, network.measured, split, num_images, "")
        if not agrees(network.expected, measured, metric):
            lines.append(f"{network.name}: {agreement_line(network.expected, measured, metric)}")
    return [*_summary(metric.title, judged, len(lines)), *lines]


def _latency_lines(networks: Sequence[ReportedNetwork], error_percent: float | None) -> list[str]:
    judged, lines = 0, []
    for network in networks:
        expected_ms, measured_ms = network.predicted_ms, network.measured_ms
        if expected_ms is None or error_percent is None:
            continue
        judged += 1
        if not is_within_error(expected_ms, measured_ms, error_percent):
            text = deviation_text(expected_ms, measured_ms, error_percent)
            lines.append(
                f"{network.name}: expected {expected_ms:.3g} ms, measured {measured_ms:.3g} ms: {text}"
            )
    return [*_summary("latency", judged, len(lines)), *lines]


def _summary(title: str, num_judged: int, num_outside: int) -> list[str]:
    if num_judged == 0:
        return []
    share = f"{num_judged - num_outside} of {num_judged} bundles"
    return [f"{title}: predicted and measured agree within the errors for {share}"]


def _gain_lines(networks: Sequence[ReportedNetwork], metric: Metric, num_images: int) -> list[str]:
    """Return what the searches gained over random networks, and whether the images can tell that."""
    groups = [[n.measured for n in networks if n.group == group] for group in ("searched", "random")]
    if not all(groups):
        return []
    searched, drawn = (float(np.mean(values)) for values in groups)
    error = metric.standard_error(drawn, num_images)
    gain, digits = metric.scale * metric.sign * (searched - drawn), metric.digits
    line = (
        f"measured: mean of {len(groups[0])} searched {metric.show(searched)}, "
        f"of {len(groups[1])} random {metric.show(drawn)}; gain {gain:.{digits}f}"
    )
    if error is None:
        return [line]
    relation = "more than" if gain > NUM_ERRORS * metric.scale * error else "not more than"
    return [f"{line}, {relation} twice the standard error of the images ({metric.scale * error:.{digits}f})"]
