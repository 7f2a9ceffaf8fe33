"""Time and memory of a training step: a supernet of a user's model against the model itself.

    python benchmarks/graph_step.py [--steps 10]

The largest sub-network and the model take turns in one process with one thread; times are processor seconds,
the ratio is the median over the pairs. Memory is the peak of a process of its own for each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ofa.graph.convert import make_elastic

CASES = [("resnet18", 64, 32), ("resnet18", 224, 8), ("mobilenet_v2", 64, 32), ("mobilenet_v2", 224, 8)]


def step_of(network: nn.Module, outputs_of: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], None]:
    """Return a function that takes one step of SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    labels = torch.arange(len(images)) % 1000

    def step() -> None:
        loss = nn.functional.cross_entropy(outputs_of(images), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def steps_of(name: str, side: int, batch: int) -> dict[str, Callable[[], None]]:
    """Return a step of the model and one of the supernet's largest sub-network."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, side, side)
    model = torchvision.models.get_model(name, weights=None).eval()
    supernet = make_elastic(model, torch.randn(2, 3, side, side)).train()
    largest = supernet.space.largest
    model.train()
    return {
        "model": step_of(model, model, images),
        "supernet": step_of(supernet, lambda inputs: supernet(inputs, largest), images),
    }


def main() -> None:
    """Print the ratios of all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--memory", nargs=4, metavar=("NAME", "SIDE", "BATCH", "WHICH"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        name, side, batch, which = options.memory
        step = steps_of(name, int(side), int(batch))[which]
        # The peak so far is that of the conversion.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        for _ in range(3):
            step()
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
        return
    for name, side, batch in CASES:
        steps = steps_of(name, side, batch)
        seconds: dict[str, list[float]] = {which: [] for which in steps}
        for index in range(options.steps + 2):
            for which in sorted(steps, reverse=bool(index % 2)):
                start_s = time.process_time()
                steps[which]()
                if index >= 2:
                    seconds[which].append(time.process_time() - start_s)
        ratios = [b / a for a, b in zip(seconds["model"], seconds["supernet"], strict=True)]
        peaks = {which: peak_mb(name, side, batch, which) for which in steps}
        seconds_of_model = statistics.median(seconds["model"])
        megabytes = f"{peaks['supernet']:.0f} / {peaks['model']:.0f} MB"
        print(
            f"{name} {side} px, batch {batch}: model {seconds_of_model:.2f} s a step, supernet / model "
            f"{statistics.median(ratios):.3f}; memory {megabytes} = {peaks['supernet'] / peaks['model']:.3f}",
            flush=True,
        )


def peak_mb(name: str, side: int, batch: int, which: str) -> float:
    """Return the peak memory of a process that takes three steps, in MB."""
    command = [sys.executable, __file__, "--memory", name, str(side), str(batch), which]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
