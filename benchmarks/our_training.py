"""Training steps and recalibrations of this project, as a separate process; see turns.py.

Started by train_step.py and bn_recalibration.py:

    python benchmarks/our_training.py THREADS elastic|static fp32|bf16
    python benchmarks/our_training.py THREADS recalibrate IMAGES RESOLUTION BATCH_SIZE
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from images import random_batch, smooth_batches
from statistics_of_inputs import two_pass_statistics
from torch import Tensor, nn
from turns import Request, measured, serve

from ofa.common.accelerator import choose_accelerator
from ofa.common.config import build
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet, build_supernet
from ofa.training.gradient_step import PendingReport
from ofa.training.optimizer import build_optimizer
from ofa.training.sampling import StepPlan
from ofa.training.settings import TrainSettings
from ofa.training.step import TrainStep

ROOT = Path(__file__).resolve().parent.parent
RESOLUTIONS = (64, 96, 128, 160, 192, 224)
LEARNING_RATE = 0.01


def full_space() -> StagedSpace:
    """Return the full MobileNetV3 space at the resolutions of the benchmarks."""
    values = yaml.safe_load((ROOT / "conf/space/mobilenet_v3.yaml").read_text())
    return dataclasses.replace(build(StagedSpace, values), resolutions=RESOLUTIONS)


def channels_last(images: Tensor) -> Tensor:
    """Return images in the memory format of this project's data."""
    return images.contiguous(memory_format=torch.channels_last)


class Fixed(nn.Module):
    """A static network with the interface of a supernet."""

    def __init__(self, network: nn.Module) -> None:
        """Take the network."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, config: SubnetConfig) -> Tensor:
        """Return the logits of the network; `config` is ignored."""
        logits: Tensor = self.network(images)
        return logits


class Steps:
    """The trainer's step, without teacher, for sub-networks inside their supernet or extracted."""

    def __init__(self, elastic: bool, precision: str) -> None:
        """Create the supernet; static networks are extracted from it on request."""
        self._elastic, self._settings = elastic, TrainSettings(batch_size=1, precision=precision)
        self._supernet = build_supernet(full_space(), 0, self._settings.dropout)
        self._config: SubnetConfig | None = None
        self._use(self._supernet)

    def answer(self, request: Request) -> dict[str, float]:
        """Return the seconds of one step of the sub-network `config`, with `batch_size` images."""
        config = SubnetConfig.from_dict(request["config"])
        if not self._elastic and config != self._config:
            self._use(Fixed(self._supernet.extract(config, self._settings.dropout)))
        self._config = config
        images, labels = random_batch(request["batch_size"], config.resolution)
        batch, plan = (channels_last(images), labels), self._plan(config)
        return measured(lambda: self._step.read(self._train(plan, batch)))

    def _plan(self, config: SubnetConfig) -> StepPlan:
        return StepPlan(config.resolution, (config,), self._supernet.space.genomes([config]))

    def _train(self, plan: StepPlan, batch: tuple[Tensor, Tensor]) -> PendingReport:
        return self._step(plan, batch, teacher=None, in_place=False, optimizer=self._optimizer, seed=0)

    def _use(self, network: nn.Module) -> None:
        network.to(memory_format=torch.channels_last).train()
        settings = self._settings
        self._optimizer = build_optimizer(network, LEARNING_RATE, settings.momentum, settings.weight_decay)
        self._step = TrainStep(cast(Supernet, network), settings, device=torch.device("cpu"))


class Recalibration:
    """Recalibration of sub-networks on the same images."""

    def __init__(self, count: int, resolution: int, batch_size: int) -> None:
        """Prepare the images and the supernet."""
        self._batches = [channels_last(batch) for batch in smooth_batches(count, resolution, batch_size)]
        self._supernet = build_supernet(full_space(), 0)

    def answer(self, request: Request) -> Any:
        """Run the request's `task` for the sub-network `config`.

        extract: write the state that `published_training.py` reads into the file `state`.
        run: return the seconds of one recalibration.
        error: return the largest errors of its statistics against two-pass float64 statistics.
        """
        config = SubnetConfig.from_dict(request["config"])
        network = self._supernet.extract(config).eval().to(memory_format=torch.channels_last)
        if request["task"] == "extract":
            state = [t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")]
            torch.save(state, request["state"])
            return None
        found = measured(lambda: recalibrate_batchnorm(network, self._batches))
        if request["task"] == "error":
            found |= two_pass_statistics(network, lambda: recalibrate_batchnorm(network, self._batches))
        return found


def handler(kind: str, *rest: str) -> Callable[[Request], Any]:
    """Return the function that answers requests, from the arguments of the command line."""
    if kind == "recalibrate":
        count, resolution, batch_size = map(int, rest)
        return Recalibration(count, resolution, batch_size).answer
    return Steps(kind == "elastic", rest[0]).answer


if __name__ == "__main__":
    choose_accelerator("cpu", int(sys.argv[1]))
    serve(handler(*sys.argv[2:]))
