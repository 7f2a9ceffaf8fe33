"""Measure a bundle's accuracy, latency and memory, e.g. `evaluate_subnet.py run_name=a bundle=largest`."""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.table.device import DeviceSpec
from latency_tables.table.timing import summarize
from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.space.space import check_fingerprint


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """Settings of `conf/evaluate_subnet.yaml`."""

    device: DeviceSpec
    bundle: str
    format: str
    split: str
    latency: bool


@command("evaluate_subnet", EvaluateConfig)
def evaluate_subnet(config: EvaluateConfig) -> tuple[float, float | None]:
    """Return top-1 (0..1) on the split and latency in ms on the device (None if not asked for)."""
    from latency_tables.measuring.networks import measure_network_ms
    from ofa.export.bundle import load_bundle
    from ofa.export.evaluate import file_top1
    from ofa.export.fresh_run import FreshRunSettings, run_fresh
    from ofa.runs.trained import open_run

    run = open_run(config)
    bundle = load_bundle(run.directory.bundle(config.bundle))
    card, device, is_weights = bundle.card, config.device, config.format == "weights"
    if card.subnet is not None:
        check_fingerprint(card.subnet.space.fingerprint, run.info.space, f"bundle {bundle.path}")
    accuracy = file_top1(bundle, config.format, run.data, config.split, device=run.device)
    print(card.name if card.subnet is None else card.subnet.config)
    print(f"top-1 of {config.format} on {config.split}: {100 * accuracy:.2f} %")
    if card.expected_top1 is not None:
        print(f"expected (predicted for validation images): {100 * card.expected_top1:.2f} %")
    if not config.latency:
        return accuracy, None
    runs = 5 if is_weights else 100  # the weights are timed by the device's engine
    fresh = run_fresh(
        bundle.path, config.format, FreshRunSettings(device.threads, device.batch_size, runs=runs)
    )
    timing = summarize([fresh.runs_ms])
    if is_weights:
        with progress_bar("timing") as progress:
            timing = measure_network_ms(bundle.network.cpu(), card.input_shape, device, progress=progress)
    latency, median = timing.latency_ms, timing.median_ms
    print(
        f"latency on {device.name if is_weights else config.format}: {latency:.3f} ms (median {median:.3f})"
    )
    runner = "PyTorch with the weights" if is_weights else f"the engine of {config.format} with its file"
    print(f"peak memory of {runner}: {fresh.added_mib:.0f} MiB; whole process {fresh.peak_mib:.0f} MiB")
    for name, expected_ms in card.expected_latency_ms.items():
        print(f"expected {name}: {expected_ms:.3f} ms")
    return accuracy, timing.latency_ms


if __name__ == "__main__":
    evaluate_subnet()
