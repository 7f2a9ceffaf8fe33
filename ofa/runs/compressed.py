"""`CompressedNetwork`: what a compression came to, step by step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ofa.common.display import aligned_lines
from ofa.common.metric import Metric
from ofa.compression.facts import CompressionFacts


@dataclass(frozen=True)
class StepResult:
    """What a network is worth after a step.

    Attributes:
        name: name of the step; "uncompressed" before the first one, "control" for the comparison.
        value: the metric on validation images.
        macs: multiply-accumulates for one image.
        parameters: number of parameters.
        zeros: share of the weights of convolutions and linear layers that are zero.
        latency_ms: measured latency; None if none was measured.
        nonzero_macs: multiply-accumulates without those with zeros, which engines do not skip.
    """

    name: str
    value: float
    macs: int
    parameters: int
    zeros: float
    latency_ms: float | None
    nonzero_macs: int


@dataclass(frozen=True)
class CompressedNetwork:
    """What a compression came to.

    Attributes:
        network: the compressed network in eval mode.
        facts: how it differs from the uncompressed one.
        metric: metric of all values.
        steps: results, those of the uncompressed network first.
        num_images: number of validation images, and of test images.
        test: value on test images, uncompressed and compressed.
    """

    network: nn.Module
    facts: CompressionFacts
    metric: Metric
    steps: tuple[StepResult, ...]
    num_images: tuple[int, int]
    test: tuple[float, float]

    @property
    def loss(self) -> float:
        """Points of the metric, or its unit, that were lost in all on validation images."""
        steps = [step for step in self.steps if step.name != "control"]
        return self.metric.gain(steps[0].value, steps[-1].value)

    @property
    def lines(self) -> list[str]:
        """A table of the steps for the user, and the values on test images."""
        metric, has_zeros = self.metric, any(step.zeros > 0.01 for step in self.steps)
        has_latency = any(step.latency_ms is not None for step in self.steps)
        rows = [["step", f"validation {metric.heading}", "M MACs", "M parameters"]]
        rows[0] += ["ms"] * has_latency + ["zeros", "M MACs without zeros"] * has_zeros
        for step in self.steps:
            row = [step.name, f"{metric.scale * step.value:.2f}"]
            row += [f"{step.macs / 1e6:.2f}", f"{step.parameters / 1e6:.3f}"]
            row += ["" if step.latency_ms is None else f"{step.latency_ms:.3g}"] * has_latency
            row += [f"{100 * step.zeros:.0f} %", f"{step.nonzero_macs / 1e6:.2f}"] * has_zeros
            rows.append(row)
        tests = [metric.show_with_error(value, self.num_images[1]) for value in self.test]
        return [
            *aligned_lines(rows),
            f"test {metric.title} ({self.num_images[1]} images): {tests[0]} uncompressed, "
            f"{tests[1]} compressed",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "metric": self.metric.name,
            "steps": [asdict(step) for step in self.steps],
            "validation_images": self.num_images[0],
            "test": {
                "uncompressed": self.test[0],
                "compressed": self.test[1],
                "images": self.num_images[1],
            },
        }
