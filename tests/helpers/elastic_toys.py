"""A small residual network of a user, its supernet, and an engine with known costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from latency_tables.engines.base import TimedRun
from ofa.graph import make_elastic
from ofa.graph.supernet import GraphSupernet

SCALE, OFFSET_MS = 2.0, 0.3
"""Latency of a whole network: scale * cost + offset."""

OVERHEAD_MS = 0.05
"""Latency of every other program besides its cost."""


class ToyBlock(nn.Module):
    """Two convolutions whose result is added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(maps)).relu()
        result: Tensor = (self.conv2(hidden) + maps).relu()
        return result


class ToyNetwork(nn.Module):
    """A stem, two residual blocks that may be left out but for the first, a convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5, padding=2)
        self.blocks = nn.Sequential(ToyBlock(16), ToyBlock(16))
        self.last = nn.Conv2d(16, 32, 1, stride=2)
        self.head = nn.Linear(32, 7)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.last(self.blocks(self.stem(images).relu())).relu()
        logits: Tensor = self.head(maps.mean((2, 3)))
        return logits


def toy_supernet(*resolutions: int) -> GraphSupernet:
    torch.manual_seed(0)
    return make_elastic(
        ToyNetwork().eval(),
        torch.randn(2, 3, 12, 12),
        widths=(0.5, 0.75, 1.0),
        divisor=2,
        min_channels=4,
        resolutions=resolutions,
        name="toy",
    )


def cost_ms(module: nn.Module, power: float = 1.0) -> float:
    """A cost that is additive over operators: of each weight, the number of its elements to a power."""
    tensors = [*module.parameters(), *module.buffers()]
    costs: list[float] = [tensor.numel() ** power for tensor in tensors if tensor.dim() > 1]
    return 1e-4 * sum(costs)


class CountingEngine:
    """Computed times: those of a program by its weights, those of a network an affine map of them."""

    def __init__(self, power: float = 1.0, stop_after: int | None = None) -> None:
        self.power, self.stop_after = power, stop_after
        self.num_prepared = self.num_runs = 0

    def describe(self) -> dict[str, str]:
        return {"engine": "counting", "version": "1"}

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        self.num_prepared += 1
        with torch.no_grad():
            module.eval()(example)
        cost = cost_ms(module, self.power)
        time_ms = SCALE * cost + OFFSET_MS if isinstance(module, fx.GraphModule) else cost + OVERHEAD_MS

        def run() -> float:
            self.num_runs += 1
            if self.num_runs == self.stop_after:
                raise KeyboardInterrupt
            return time_ms

        return run

    @contextmanager
    def measuring(self) -> Iterator[None]:
        yield
