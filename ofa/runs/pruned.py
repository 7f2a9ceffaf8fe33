"""`PrunedNetwork`: what a pruning came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ofa.common.metric import Metric
from ofa.graph.space import GraphSpace
from ofa.runs.pruning_settings import LATENCY
from ofa.space.plain import GeneConfig

_UNITS = {
    "macs": (1e6, "M MACs"),
    "parameters": (1e6, "M parameters"),
    "peak_activation_bytes": (1e6, "MB of activations"),
    LATENCY: (1.0, "ms"),
}


def cost_text(name: str, value: float) -> str:
    """Return a cost with its unit, for users."""
    scale, unit = _UNITS[name]
    return f"{value / scale:.4g} {unit}"


@dataclass(frozen=True)
class PrunedNetwork:
    """What a pruning came to.

    Attributes:
        network: the pruned network, in eval mode.
        config: its values in the space of the original network.
        metric: metric of the values below.
        original: validation value of the original network.
        before: validation value of the pruned network before its last fine-tuning.
        after: validation value of the pruned network.
        test: value of the pruned network on test images.
        original_test: value of the original network on test images.
        costs: costs of the original and of the pruned network, by name.
        num_images: number of validation images, and of test images.
    """

    network: nn.Module
    config: GeneConfig
    metric: Metric
    original: float
    before: float
    after: float
    test: float
    original_test: float
    costs: Mapping[str, tuple[float, float]]
    num_images: tuple[int, int]

    @property
    def lines(self) -> list[str]:
        """Lines for the user: costs and values of both networks."""
        metric, (num_validation, num_test) = self.metric, self.num_images
        costs = [
            f"{cost_text(name, pruned)} ({100 * pruned / full:.0f} %)"
            for name, (full, pruned) in self.costs.items()
        ]
        values = [metric.show(value) for value in (self.original, self.before, self.after)]
        tests = [metric.show_with_error(value, num_test) for value in (self.test, self.original_test)]
        return [
            f"pruned network: {', '.join(costs)}",
            f"validation {metric.title} ({num_validation} images): {values[0]} original, {values[1]} pruned, "
            f"{values[2]} fine-tuned",
            f"test {metric.title} ({num_test} images): {tests[0]}; the original has {tests[1]}",
        ]

    def to_dict(self, space: GraphSpace) -> dict[str, Any]:
        """Return plain JSON values.

        Args:
            space: space of the network.
        """
        counts = space.selection(self.config).counts
        names = ("original", "before_finetuning", "pruned")
        return {
            "config": self.config.to_dict(),
            "units": {
                group.name: {"original": group.num_units, "pruned": count}
                for group, count in zip(space.structure.groups, counts, strict=True)
            },
            "costs": {
                name: {"original": full, "pruned": pruned} for name, (full, pruned) in self.costs.items()
            },
            "metric": self.metric.name,
            "validation": dict(zip(names, (self.original, self.before, self.after), strict=True))
            | {"images": self.num_images[0]},
            "test": {"original": self.original_test, "pruned": self.test, "images": self.num_images[1]},
        }
