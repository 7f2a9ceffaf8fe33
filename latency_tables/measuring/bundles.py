"""`measure_bundle`: latency and memory of a bundle's file, end to end in a fresh process."""

from __future__ import annotations

from dataclasses import dataclass, replace

from latency_tables.engines.base import processor_name
from latency_tables.measuring.networks import measure_network_ms
from latency_tables.table.device import DeviceSpec, device_target
from latency_tables.table.timing import summarize
from ofa.common.latency_target import LatencyTarget
from ofa.common.progress import ProgressCallback, silent
from ofa.export.bundle import Bundle
from ofa.export.formats import format_of
from ofa.export.fresh_run import FreshRunSettings, run_fresh

WEIGHTS = "weights"
_RUNS = 100


@dataclass(frozen=True)
class BundleMeasurement:
    """Latency and memory of one file of a bundle.

    Attributes:
        latency_ms: milliseconds of a run, robust to disturbances.
        median_ms: median of the runs.
        added_mib: memory that loading and running the network added to the process, MiB.
        peak_mib: peak memory of the whole process, MiB.
    """

    latency_ms: float
    median_ms: float
    added_mib: float
    peak_mib: float


def bundle_target(bundle: Bundle, format_name: str, device: DeviceSpec) -> LatencyTarget:
    """Return what `measure_bundle` measures: the engine and the precision of the file on this machine."""
    target = device_target(device, processor_name())
    if format_name == WEIGHTS:
        return target
    precision = bundle.files[format_name].precision
    runtime = format_of(format_name, precision).runtime
    engine = format_name if runtime is None else runtime.name
    return replace(target, engine=engine, precision=precision)


def measure_bundle(
    bundle: Bundle,
    format_name: str,
    device: DeviceSpec,
    *,
    trust: bool = False,
    progress: ProgressCallback = silent,
) -> BundleMeasurement:
    """Measure a file of a bundle on this machine.

    Args:
        bundle: the bundle.
        format_name: one of its files, e.g. "onnx", run by its own engine; "weights" is run by the engine of
            the device.
        device: threads, batch size and measuring effort.
        trust: run a file that can run code although it was not exported on this machine.
        progress: called while the weights are timed.

    Raises:
        UserError: if the bundle lacks the file, or the engine is not installed or fails.
    """
    is_weights = format_name == WEIGHTS
    # The runs of the weights in the fresh process are for the memory alone.
    settings = FreshRunSettings(
        device.threads, device.batch_size, runs=5 if is_weights else _RUNS, trust=trust
    )
    fresh = run_fresh(bundle.path, format_name, settings)
    if is_weights:
        network, image_shape = bundle.network.cpu(), bundle.card.input_shape
        timing = measure_network_ms(network, image_shape, device, progress=progress)
    else:
        timing = summarize([fresh.runs_ms])
    return BundleMeasurement(timing.latency_ms, timing.median_ms, fresh.added_mib, fresh.peak_mib)
