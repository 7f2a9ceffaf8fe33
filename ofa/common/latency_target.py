"""`LatencyTarget`: what a latency is for, and whether a measured latency agrees with an expected one."""

from __future__ import annotations

from dataclasses import dataclass

NUM_ERRORS = 2.0
"""A difference of more than this many mean errors of a table is not put down to the table."""

_COMPARED = ("engine", "precision", "threads", "batch_size", "processor")


@dataclass(frozen=True)
class LatencyTarget:
    """The device of a latency, and how networks run on it.

    Attributes:
        device: name of the device.
        engine: inference engine.
        precision: precision of the computation.
        threads: processor threads of a run.
        batch_size: images of a run.
        processor: name of the processor; empty if it is not known.
        error_percent: mean error of the latency table of the device on whole networks, in percent; None if
            it is not known.
    """

    device: str
    engine: str
    precision: str = "fp32"
    threads: int = 1
    batch_size: int = 1
    processor: str = ""
    error_percent: float | None = None

    @property
    def text(self) -> str:
        """The target in words, e.g. "my_cpu_onnx (onnx_runtime, fp32, 1 thread)"."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        batch = "" if self.batch_size == 1 else f", {self.batch_size} images a run"
        return f"{self.device} ({self.engine}, {self.precision}, {threads}{batch})"

    def differences(self, other: LatencyTarget) -> list[str]:
        """Return in what another target differs, e.g. "engine openvino"; empty if latencies compare."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in _COMPARED)
        return [
            f"{name.replace('_', ' ')} {new}"
            for name, old, new in pairs
            if old != new and not (old == "" or new == "")
        ]


def latency_line(
    expected_ms: float, target: LatencyTarget | None, measured_ms: float, measured_on: LatencyTarget
) -> str:
    """Return a line that judges an expected latency by a measured one, where they are of the same kind.

    Args:
        expected_ms: expected milliseconds.
        target: what they are for; None if it is not recorded.
        measured_ms: measured milliseconds.
        measured_on: what was measured.
    """
    expected = f"expected {expected_ms:.3g} ms"
    if target is None:
        return f"{expected} on a device that is not recorded: not compared"
    if changes := target.differences(measured_on):
        return f"{expected} on {target.text}: not compared with {', '.join(changes)}"
    judgement = deviation_text(expected_ms, measured_ms, target.error_percent)
    return f"{expected} on {target.device}, measured {measured_ms:.3g} ms: {judgement}"


def deviation_text(expected_ms: float, measured_ms: float, error_percent: float | None = None) -> str:
    """Return how much slower or faster a measured latency is, and whether a table's error explains it."""
    if expected_ms <= 0:
        return "the table is wrong here: no time is negative"
    percent = 100 * (measured_ms / expected_ms - 1)
    text = f"{abs(percent):.0f} % {'slower' if percent > 0 else 'faster'}"
    if round(percent) == 0:
        text = "as expected"
    if error_percent is None:
        return text
    relation = "within" if is_within_error(expected_ms, measured_ms, error_percent) else "more than"
    return f"{text}, {relation} twice the table's mean error of {error_percent:.1f} %"


def is_within_error(expected_ms: float, measured_ms: float, error_percent: float) -> bool:
    """Return whether two latencies differ by at most `NUM_ERRORS` mean errors of a table."""
    return expected_ms > 0 and 100 * abs(measured_ms / expected_ms - 1) <= NUM_ERRORS * error_percent
