"""What a bundle lets expect of one of its files, and whether measurements agree."""

from __future__ import annotations

from collections.abc import Mapping

from ofa.common.expectation import MetricValue, agreement_line
from ofa.common.latency_target import LatencyTarget, latency_line
from ofa.common.metric import Metric, metric_named
from ofa.export.bundle import Bundle
from ofa.export.formats import format_of
from ofa.export.record import ExportedFile


def expected_value(bundle: Bundle, name: str) -> MetricValue | None:
    """Return the expected value of the metric of one of a bundle's files; None if it is not known.

    A file of lower precision was measured when it was exported: that is its expectation, and not the card's,
    which is for floating point.
    """
    file = bundle.files[name]
    return bundle.card.expected_metric if file.validation_metric is None else file.validation_metric


def metric_lines(bundle: Bundle, name: str, measured: MetricValue, metric: Metric) -> list[str]:
    """Return lines that judge the expected value of a metric of a file by a measured one."""
    expected = expected_value(bundle, name)
    if expected is None or expected.name != measured.name:
        return [f"the bundle has no expected {metric.title}"]
    line = f"{metric.title}: {agreement_line(expected, measured, metric)}"
    precision = bundle.files[name].precision
    if expected is not bundle.card.expected_metric:
        line += f"; the expectation is that of the {precision} file"
    return [line]


def export_lines(expected: MetricValue | None, files: Mapping[str, ExportedFile]) -> list[str]:
    """Return a line that judges an expected metric by the fp32 network's, where an export measured that."""
    found = (file.fp32_validation_metric for file in files.values())
    measured = next((value for value in found if value is not None), None)
    if expected is None or measured is None or expected.name != measured.name:
        return []
    metric = metric_named(expected.name)
    return [f"fp32 on validation images: {agreement_line(expected, measured, metric)}"]


def format_for(target: LatencyTarget, files: Mapping[str, ExportedFile]) -> str | None:
    """Return the file of a bundle that runs as a latency says: its engine and precision; None without one."""
    for name, file in files.items():
        if name == "weights":
            continue
        runtime = format_of(name, file.precision).runtime
        if runtime is not None and (runtime.name, file.precision) == (target.engine, target.precision):
            return name
    return None


def latency_lines(bundle: Bundle, measured_ms: float, measured_on: LatencyTarget) -> list[str]:
    """Return a line for each expected latency of a bundle that judges it by a measured one, in milliseconds.

    Those for other engines, precisions or processors are named, and not compared.
    """
    card = bundle.card
    return [
        latency_line(expected_ms, card.latency_targets.get(name), measured_ms, measured_on)
        for name, expected_ms in card.expected_latency_ms.items()
    ]
