"""Measure a bundle's accuracy and latency, e.g. `evaluate_subnet.py run_name=digits bundle=largest`."""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.device import DeviceSpec
from latency_tables.network import measure_network_ms
from ofa.checkpoint import check_fingerprint
from ofa.data.base import resize
from ofa.evaluate import top1
from ofa.export import load_bundle
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunConfig, open_run


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """Settings of `conf/evaluate_subnet.yaml`."""

    device: DeviceSpec
    bundle: str
    split: str
    latency: bool


@command("evaluate_subnet", EvaluateConfig)
def evaluate_subnet(config: EvaluateConfig) -> tuple[float, float | None]:
    """Return top-1 (0..1) on the split and latency in ms on the device (None if not asked for)."""
    run = open_run(config)
    bundle = load_bundle(run.directory.bundle(config.bundle))
    info, network = bundle.info, bundle.network.to(run.device)
    check_fingerprint(info.space.fingerprint, run.info.space, f"bundle {bundle.path}")
    resolution = info.config.resolution
    batches = run.data.batches(config.split, 250, run.device)
    accuracy = top1(network, ((resize(images, resolution), labels) for images, labels in batches))
    print(f"{info.config}\ntop-1 on {config.split}: {100 * accuracy:.2f} %")
    if info.expected_top1 is not None:
        print(f"expected (predicted for validation images): {100 * info.expected_top1:.2f} %")
    if not config.latency:
        return accuracy, None
    with progress_bar("timing") as progress:
        timing = measure_network_ms(network.cpu(), network.image_shape, config.device, progress=progress)
    print(f"latency on {config.device.name}: {timing.latency_ms:.3f} ms (median {timing.median_ms:.3f})")
    for name, expected_ms in info.expected_latency_ms.items():
        print(f"expected {name}: {expected_ms:.3f} ms")
    return accuracy, timing.latency_ms


if __name__ == "__main__":
    evaluate_subnet()
