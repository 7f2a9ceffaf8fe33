"""The processes of a training run: rank and size, and the collective operations.

Under `torchrun --nproc-per-node=N script.py ...`, each process reads its rank from the environment. A process
started without torchrun is a world of size 1, in which every operation is the identity, so the same code
serves both.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ofa.common.errors import UserError


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over all processes, in one transfer.

        Args:
            tensors: any shapes, one data type; every process passes the same list of shapes.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the tensors of all processes, which have one shape; gradients flow to all."""
        if self.size == 1:
            return tensor
        result: Tensor = _Sum.apply(tensor)
        return result

    def gather(self, values: dict[str, float]) -> dict[str, float]:
        """Return the entries of the dictionaries of all processes, in the same order everywhere."""
        if self.size == 1:
            return values
        gathered: list[dict[str, float] | None] = [None] * self.size
        dist.all_gather_object(gathered, values)
        return {name: value for part in gathered if part for name, value in part.items()}

    def local_slice(self, batch_size: int) -> slice:
        """Return the slice of a batch that belongs to this process; `batch_size` is divisible by `size`."""
        count = batch_size // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def wait(self) -> None:
        """Block until every process has called this."""
        if self.size > 1:
            dist.barrier()


class _Sum(torch.autograd.Function):
    """Sum over processes: each process's loss depends on the tensors of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


SINGLE_PROCESS = World()
# Numbers the worlds of a process; all processes open the same ones.
_WORLDS = itertools.count()


def check_batch_size(batch_size: int, world: World) -> None:
    """Raise the error for a batch that cannot be split equally."""
    if batch_size % world.size:
        raise UserError(
            f"batch_size {batch_size} cannot be shared equally by {world.size} processes; "
            "choose a multiple of their number."
        )


def local_rank() -> int:
    """Return the rank of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def launched_world(device: torch.device) -> Iterator[World]:
    """Yield the world that torchrun started this process in, or a world of one.

    Args:
        device: device of this process; CUDA devices communicate through NCCL, processors through Gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    store, rank, size = next(rendezvous("env://"))
    # The store still holds the addresses of processes that died before a restart, and of earlier worlds.
    attempt = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}_{next(_WORLDS)}"
    backend = "nccl" if device.type == "cuda" else "gloo"
    own_store = dist.PrefixStore(f"attempt_{attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own_store, rank=rank, world_size=size)
    try:
        yield World(rank, size)
    finally:
        dist.destroy_process_group()
