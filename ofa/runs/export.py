"""`export_subnet`: a sub-network of a run as a bundle in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ofa.common.expectation import MetricValue, measured_value
from ofa.common.latency_target import LatencyTarget
from ofa.common.progress import ProgressCallback, silent
from ofa.compression.quantisation.search_precision import MixedPrecisionSettings, samples_of
from ofa.evaluation.evaluate import SubnetEvaluator, score
from ofa.export.card import subnet_card
from ofa.export.precision import TargetPrecision
from ofa.export.write import ExportReport, export_bundle
from ofa.graph.subnet import subnet_graph
from ofa.graph.supernet import GraphSupernet
from ofa.runs.trained import TrainedRun
from ofa.space.config import AnyConfig


def export_subnet(
    run: TrainedRun,
    config: AnyConfig,
    name: str,
    *,
    formats: Sequence[str] = ("onnx", "pt2"),
    precision: str = "fp32",
    mixed_precision: MixedPrecisionSettings | None = None,
    calibration_images: int = 2000,
    quantisation_images: int = 300,
    expected_metric: MetricValue | None = None,
    expected_latency_ms: Mapping[str, float] | None = None,
    latency_targets: Mapping[str, LatencyTarget] | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: ProgressCallback = silent,
) -> ExportReport:
    """Extract, recalibrate and export a sub-network of a run.

    Args:
        run: the run.
        config: the sub-network.
        name: name of the bundle; one that is there is replaced.
        formats: files to write beside the weights; see `ofa.export.formats`.
        precision: further precision of each format beside fp32, e.g. "int8".
        mixed_precision: layers that stay in fp32; None for none.
        calibration_images: training images that recalibrate batch norm.
        quantisation_images: training images from which ranges of activations are taken.
        expected_metric: expected value of a metric, e.g. from the search; None to measure the exported
            network on the validation images.
        expected_latency_ms: estimated milliseconds by the name of the limit that the search kept.
        latency_targets: what these latencies are for, by the same names.
        provenance: further facts of how it was made.
        progress: called after every format.

    Raises:
        UserError: if no bundle can be called so, or another process writes it; as `export_bundle`.
    """
    with run.directory.writing_bundle(name):
        evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=calibration_images)
        network = evaluator.network(config)
        expected_metric = expected_metric or _measured(evaluator, network, config, run)
        network = network.cpu()
        card = subnet_card(
            run.info.space,
            config,
            run.data.info,
            network=run.info.network,
            graph=subnet_graph(run.supernet, config) if isinstance(run.supernet, GraphSupernet) else None,
            expected_metric=expected_metric,
            expected_latency_ms=expected_latency_ms,
            latency_targets=latency_targets,
            provenance={"run": run.directory.name, **(provenance or {}), "supernet": run.info.sha256},
        )
        samples = samples_of(evaluator, config.resolution, quantisation_images)
        target = TargetPrecision(precision, samples, mixed_precision or MixedPrecisionSettings())
        path = run.directory.new_bundle(name)
        return export_bundle(network, card, path, formats, target=target, progress=progress)


def _measured(
    evaluator: SubnetEvaluator[nn.Module], network: nn.Module, config: AnyConfig, run: TrainedRun
) -> MetricValue | None:
    """Return the metric of the network on the validation images; None without any."""
    num_images, task = evaluator.num_images, evaluator.task
    if num_images == 0:
        return None
    value = score(network, evaluator.batches(config.resolution), task)
    return measured_value(task.metric, value, "validation", num_images, run.data.info.name)
