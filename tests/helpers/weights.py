"""Weights of finished runs, and whether two are equal."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ofa.common.tensors import load_tensors
from ofa.training.checkpoints import TrainingCheckpoints


def final_weights(folder: Path) -> dict[str, Tensor]:
    steps = TrainingCheckpoints(folder / "checkpoints").steps()
    assert steps[-1] == 24
    values = load_tensors(folder / "checkpoints" / f"step_{steps[-1]:08d}.pt", "checkpoint")
    state: dict[str, Tensor] = values["supernet"]
    return state


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
