"""Measure a bundle's accuracy and latency, e.g. `evaluate_subnet.py run_name=digits bundle=largest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from latency_tables.device import DeviceSpec
from latency_tables.network import measure_network_ms
from ofa.data import load_data
from ofa.data.base import resize
from ofa.evaluate import top1
from ofa.export import load_bundle
from ofa.launch import choose_accelerator, command
from ofa.progress import progress_bar
from ofa.run import RunDirectory


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of `conf/evaluate_subnet.yaml`."""

    run_name: str
    runs_dir: str
    device: DeviceSpec
    bundle: str
    split: str
    latency: bool
    data_root: str | None
    accelerator: str
    threads: int | None


@command("evaluate_subnet", EvaluateConfig)
def evaluate_subnet(config: EvaluateConfig) -> tuple[float, float | None]:
    """Return top-1 (0..1) on the split and latency in ms on the device (None if not asked for)."""
    device = choose_accelerator(config.accelerator, config.threads)
    run = RunDirectory(config.runs_dir, config.run_name)
    path = run.bundles / config.bundle
    bundle = load_bundle(path if path.is_dir() else Path(config.bundle))
    data = load_data(run.load_data_settings(config.data_root))
    resolution = bundle.info.config.resolution
    batches = data.batches(config.split, 250, device)
    network = bundle.network.to(device)
    accuracy = top1(network, ((resize(images, resolution), labels) for images, labels in batches))
    print(f"{bundle.info.config}")
    expected = bundle.info.expected_top1
    print(
        f"top-1 on {config.split}: {100 * accuracy:.2f} %"
        + (f", expected {100 * expected:.2f} %" if expected else "")
    )
    if not config.latency:
        return accuracy, None
    shape = (bundle.info.space.in_channels, resolution, resolution)
    with progress_bar("timing") as progress, torch.inference_mode():
        timing = measure_network_ms(network.cpu(), shape, config.device, progress=progress)
    expected_ms = bundle.info.expected_latency_ms.get("latency_ms")
    print(
        f"latency on {config.device.name}: {timing.latency_ms:.3f} ms (median {timing.median_ms:.3f})"
        + (f", expected {expected_ms:.3f} ms" if expected_ms else "")
    )
    return accuracy, timing.latency_ms


if __name__ == "__main__":
    evaluate_subnet()
