"""Measure a bundle's accuracy, latency and memory, e.g. `ofa evaluate run_name=a bundle=largest`."""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.table.device import DeviceSpec
from ofa.common.expectation import measured_value
from ofa.common.metric import BALANCED_ACCURACY, TOP1
from ofa.common.progress import progress_bar
from ofa.data.settings import DataSettings
from ofa.launch import command
from ofa.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """Settings of `conf/evaluate_subnet.yaml`."""

    device: DeviceSpec
    bundle: str
    data: DataSettings | None
    format: str
    split: str
    latency: bool


@command("evaluate_subnet", EvaluateConfig)
def evaluate_subnet(config: EvaluateConfig) -> tuple[float, float | None]:
    """Return top-1 (0..1) on the split and latency in ms on the device (None if not asked for)."""
    from latency_tables.measuring.bundles import WEIGHTS, bundle_target, measure_bundle
    from ofa.evaluation.classes import are_unequal
    from ofa.export.bundle import load_bundle
    from ofa.export.evaluate import file_metrics
    from ofa.export.expectation import accuracy_lines, latency_lines
    from ofa.runs.retarget import check_classes
    from ofa.runs.trained import open_images

    run = open_images(config, config.data)
    bundle = load_bundle(run.directory.bundle(config.bundle))
    card = bundle.card
    check_classes(bundle, run.data.info)
    values = file_metrics(bundle, config.format, run.data, config.split, device=run.device)
    accuracy, num_images = values[TOP1.name], run.data.size(config.split)
    print(card.name if card.subnet is None else card.subnet.config)
    shown = f"{TOP1.show_with_error(accuracy, num_images)} (standard error of {num_images} images)"
    print(f"top-1 of {config.format} on {config.split}: {shown}")
    if are_unequal(run.data.class_counts(config.split)):
        print(f"{BALANCED_ACCURACY.title}: {BALANCED_ACCURACY.show(values[BALANCED_ACCURACY.name])}")
    measured_top1 = measured_value(TOP1, accuracy, config.split, num_images, run.data.info.name)
    print(*accuracy_lines(bundle, config.format, measured_top1), sep="\n")
    if not config.latency:
        return accuracy, None
    with progress_bar("timing") as progress:
        measured = measure_bundle(bundle, config.format, config.device, progress=progress)
    is_weights = config.format == WEIGHTS
    place = config.device.name if is_weights else config.format
    print(f"latency on {place}: {measured.latency_ms:.3f} ms (median {measured.median_ms:.3f})")
    engine = "PyTorch with the weights" if is_weights else f"the engine of {config.format} with its file"
    print(f"peak memory of {engine}: {measured.added_mib:.0f} MiB; whole process {measured.peak_mib:.0f} MiB")
    measured_on = bundle_target(bundle, config.format, config.device)
    for line in latency_lines(bundle, measured.latency_ms, measured_on):
        print(line)
    return accuracy, measured.latency_ms


if __name__ == "__main__":
    evaluate_subnet()
