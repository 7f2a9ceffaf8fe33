"""Lists of workloads for tests of fresh processes, which import this file by name."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latency_tables.measuring.methods import Workload
from ofa.common.errors import UserError


class DiesAtRun(nn.Module):
    """Kills its process in a late run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, images: Tensor) -> Tensor:
        self.runs += 1
        if self.runs > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return images


class Threads(nn.Module):
    """Takes longer than a millisecond per thread that PyTorch may use."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.get_num_threads() != 1:
            raise RuntimeError(f"{torch.get_num_threads()} threads")
        return images + 1


@dataclass(frozen=True)
class Modules:
    """One workload per module class; the class `None` stands for a user's mistake."""

    classes: tuple[type[nn.Module] | None, ...]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        if None in self.classes:
            raise UserError("There is nothing to measure.")
        return tuple(Workload(c.__name__, c, (1, 4, 4)) for c in self.classes if c is not None)
