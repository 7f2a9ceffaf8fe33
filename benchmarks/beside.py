"""Background loads for measurements; they end with the measuring process.

Run by hand: python benchmarks/beside.py busy|training
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

MAX_SECONDS = 600.0
"""A load ends by itself after this time."""


@contextmanager
def load(name: str) -> Iterator[None]:
    """Run the load `name`, one of `LOADS` or "idle" for none, in a separate process.

    Raises:
        RuntimeError: if it ends before it reports its start; its error is on the error stream.
    """
    if name == "idle":
        yield
        return
    process = subprocess.Popen([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the load {name!r} ended with {process.wait()}")
        yield
    finally:
        process.kill()
        process.communicate()


def busy() -> Callable[[], object]:
    """Return a step that keeps one core busy with Python for a few milliseconds."""
    return lambda: sum(range(200_000))


def training() -> Callable[[], object]:
    """Return a training step of a small network that uses all cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    layers = [nn.Conv2d(3, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


LOADS: dict[str, Callable[[], Callable[[], object]]] = {"busy": busy, "training": training}


def main() -> None:
    """Report the start, and run until the parent has ended or `MAX_SECONDS` have passed."""
    parent, end = os.getppid(), time.monotonic() + MAX_SECONDS
    step = LOADS[sys.argv[1]]()
    step()
    print("begun", flush=True)
    while os.getppid() == parent and time.monotonic() < end:
        step()


if __name__ == "__main__":
    main()
