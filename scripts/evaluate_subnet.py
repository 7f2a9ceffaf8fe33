"""Measure a bundle's accuracy, latency and memory, e.g. `ofa evaluate run_name=a bundle=largest`."""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.table.device import DeviceSpec
from ofa.common.command_line import command_line, run_settings
from ofa.common.disk import check_writable
from ofa.common.expectation import measured_value
from ofa.common.progress import progress_bar
from ofa.common.text_settings import PathText
from ofa.data.settings import CLASSIFICATION, MULTI_LABEL, REGRESSION, SEGMENTATION, DataSettings
from ofa.launch import command
from ofa.runs.config import RunConfig

PROGRAMS = {
    CLASSIFICATION: "classify",
    SEGMENTATION: "segment",
    MULTI_LABEL: "predict",
    REGRESSION: "predict",
}
"""The command that runs a network for a task on pictures."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """Settings of `conf/evaluate_subnet.yaml`."""

    device: DeviceSpec
    bundle: PathText
    data: DataSettings | None
    task: str | None
    format: str
    verify_key: PathText | None
    trust: bool
    split: str
    latency: bool
    output: PathText | None


@command("evaluate_subnet", EvaluateConfig)
def evaluate_subnet(config: EvaluateConfig) -> tuple[float, float | None]:
    """Return the metric of the task on the split, and milliseconds on the device (None if not asked for)."""
    from latency_tables.measuring.bundles import WEIGHTS, bundle_target, measure_bundle
    from ofa.evaluation.classes import shows_other_metrics
    from ofa.evaluation.tasks import task_of
    from ofa.export.bundle import load_bundle
    from ofa.export.evaluate import measure_file
    from ofa.export.expectation import latency_lines, metric_lines
    from ofa.export.signature import check_signature
    from ofa.runs.reports import report_path
    from ofa.runs.retarget import check_classes
    from ofa.runs.trained import open_images
    from search.reports.confusion import confusion_lines, json_path, save_confusion

    output = None if config.output is None else json_path(config.output)
    run = open_images(config, config.data, config.task)
    path = run.directory.bundle(config.bundle)
    print(f"signature: {check_signature(path, config.verify_key)}")
    bundle = load_bundle(path)
    card = bundle.card
    check_classes(bundle, run.data.info)
    output = output or report_path(bundle.path, config.format, run.data.info.name, config.split)
    check_writable(output.parent)
    meter = measure_file(bundle, config.format, run.data, config.split, device=run.device, trust=config.trust)
    (metric, *others), values = task_of(run.data).metrics, meter.values()
    value, num_images = values[metric.name], run.data.size(config.split)
    print(*([card.name] if card.subnet is None else card.subnet.lines), sep="\n")
    shown = f"{metric.show_with_error(value, num_images)} ({metric.basis(num_images)})"
    print(f"{metric.title} of {config.format} on {config.split}: {shown}")
    if shows_other_metrics(run.data, config.split):
        print(*(f"{other.title}: {other.show(values[other.name])}" for other in others), sep="\n")
    measured = measured_value(metric, value, config.split, num_images, run.data.info.name)
    print(*metric_lines(bundle, config.format, measured, metric), sep="\n")
    for line in meter.details(run.data.info.class_names):
        print(f"  {line}")
    confusion = meter.confusion(run.data.info.class_names)
    if confusion is not None:
        print(*confusion_lines(confusion), sep="\n")
        title = f"{bundle.path.name}, {config.format}, {config.split} images"
        print(f"per class, and the confusion matrix: {save_confusion(confusion, output, title)}")
    hints = _hints(config, card.task)
    if not config.latency:
        print(*hints, sep="\n", end="\n" * bool(hints))
        return value, None
    with progress_bar("timing") as progress:
        timing = measure_bundle(bundle, config.format, config.device, trust=config.trust, progress=progress)
    is_weights = config.format == WEIGHTS
    place = config.device.name if is_weights else config.format
    print(f"latency on {place}: {timing.latency_ms:.3f} ms (median {timing.median_ms:.3f})")
    engine = "PyTorch with the weights" if is_weights else f"the engine of {config.format} with its file"
    print(f"peak memory of {engine}: {timing.added_mib:.0f} MiB; whole process {timing.peak_mib:.0f} MiB")
    measured_on = bundle_target(bundle, config.format, config.device)
    for line in latency_lines(bundle, timing.latency_ms, measured_on):
        print(line)
    print(*hints, sep="\n", end="\n" * bool(hints))
    return value, timing.latency_ms


def _hints(config: EvaluateConfig, task: str) -> list[str]:
    """Return the line that runs the same file of the bundle on pictures; none for a task of one's own."""
    if task not in PROGRAMS:
        return []
    is_of_run = (config.directory.bundles / config.bundle).is_dir()
    run = run_settings(config.run_name, config.runs_dir) if is_of_run else {}
    settings = {**run, "bundle": config.bundle, "format": config.format, "images": "VALUE"}
    return [f"for pictures of your own: {command_line(PROGRAMS[task], settings)}"]


if __name__ == "__main__":
    evaluate_subnet()
