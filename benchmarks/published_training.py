"""Training steps and recalibrations of the published package, as a separate process; see turns.py.

Started by train_step.py and bn_recalibration.py: the package has the import name `ofa`, like this
project. Only its public classes and functions are called, with its own defaults.

    python benchmarks/published_training.py THREADS PACKAGE_FOLDER step
    python benchmarks/published_training.py THREADS PACKAGE_FOLDER recalibrate IMAGES RESOLUTION BATCH_SIZE
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from images import random_batch, smooth_batches
from statistics_of_inputs import two_pass_statistics
from torch import Tensor
from turns import Request, measured, serve

BLOCKS_PER_STAGE = 4
PACKAGE = "ofa.imagenet_classification.elastic_nn"


def supernet() -> Any:
    """Return the package's MobileNetV3 supernet."""
    networks: Any = importlib.import_module(f"{PACKAGE}.networks")
    return networks.OFAMobileNetV3(ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4])


def activate(network: Any, stages: Sequence[dict[str, list[float]]]) -> None:
    """Choose a sub-network; inactive blocks get an arbitrary choice, which is not used."""
    kernel_sizes: list[int] = []
    expand_ratios: list[int] = []
    for stage in stages:
        unused = [3] * (BLOCKS_PER_STAGE - len(stage["kernel_sizes"]))
        kernel_sizes += [*map(int, stage["kernel_sizes"]), *unused]
        expand_ratios += [*map(int, stage["expand_ratios"]), *unused]
    network.set_active_subnet(ks=kernel_sizes, e=expand_ratios, d=[len(s["kernel_sizes"]) for s in stages])


class Steps:
    """Training steps of sub-networks like the package's training loop, without teacher."""

    def __init__(self) -> None:
        """Create supernet and optimiser."""
        self._utils: Any = importlib.import_module("ofa.utils")
        self._network = supernet().train()
        groups = [list(self._network.get_parameters(["bn", "bias"], mode)) for mode in ("exclude", "include")]
        self._optimizer = self._utils.build_optimizer(groups, "sgd", None, 0.01, 3e-5, "bn#bias")

    def answer(self, request: Request) -> dict[str, float]:
        """Return the seconds of one step of the sub-network `config`, with `batch_size` images."""
        config = request["config"]
        activate(self._network, config["stages"])
        batch = random_batch(request["batch_size"], config["resolution"])
        return measured(lambda: self._step(*batch))

    def _step(self, images: Tensor, labels: Tensor) -> None:
        loss = self._utils.cross_entropy_with_label_smoothing(self._network(images), labels, 0.1)
        self._network.zero_grad()
        loss.backward()
        self._optimizer.step()
        loss.item()


class Recalibration:
    """Recalibration of extracted sub-networks on the same images."""

    def __init__(self, count: int, resolution: int, batch_size: int) -> None:
        """Prepare the images and the supernet."""
        labels = torch.zeros(batch_size, dtype=torch.long)
        self._loader = [(images, labels) for images in smooth_batches(count, resolution, batch_size)]
        self._utils: Any = importlib.import_module(f"{PACKAGE}.utils")
        self._supernet = supernet()

    def answer(self, request: Request) -> Any:
        """Run the request's `task` for the sub-network `config` with the weights in the file `state`.

        run: return the seconds of one recalibration.
        error: return the largest errors of its statistics against two-pass float64 statistics.
        """
        activate(self._supernet, request["config"]["stages"])
        network = self._supernet.get_active_subnet().eval()
        entries = [t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")]
        for entry, value in zip(entries, torch.load(request["state"], weights_only=True), strict=True):
            assert entry.numel() == value.numel()
            entry.copy_(value.reshape(entry.shape))
        found = measured(lambda: self._utils.set_running_statistics(network, self._loader))
        if request["task"] == "error":
            found |= two_pass_statistics(
                network, lambda: self._utils.set_running_statistics(network, self._loader)
            )
        return found


def handler(package: str, kind: str, *rest: str) -> Callable[[Request], Any]:
    """Return the function that answers requests, from the arguments of the command line."""
    sys.path.insert(0, package)
    if kind == "recalibrate":
        count, resolution, batch_size = map(int, rest)
        return Recalibration(count, resolution, batch_size).answer
    return Steps().answer


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve(handler(*sys.argv[2:]))
