"""Worker processes that decode images: as many as the machine carries, and none that is waited for in vain.

They survive signals to the group, and end with their parent.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from ofa.common.errors import UserError
from ofa.common.machine import num_free_files, num_processors

BATCH_TIMEOUT_S = 300.0
"""How long a batch is waited for; the slowest measured takes some seconds."""

SHARED_MEMORY = Path("/dev/shm")
_MIB = 2**20
# Workers hand batches over by open files, and fail late and unclearly without.
_MIN_FREE_FILES = 64
_PREFETCH = 2
_ADVICE = (
    "Give it more (docker run --shm-size=1g, a tmpfs of the pod), or choose a smaller batch_size or "
    "data.workers=0."
)


@dataclass(frozen=True)
class WorkerPlan:
    """How batches are loaded.

    Attributes:
        num_workers: processes beside this one; 0: this one decodes.
        prefetch: batches that each of them works ahead; None without workers.
        remark: why there are fewer than asked for; empty if there are as many.
    """

    num_workers: int
    prefetch: int | None
    remark: str = ""


def plan_workers(
    num_workers: int, num_batches: int, batch_bytes: int, free_bytes: int | None = None
) -> WorkerPlan:
    """Return how many workers the processors and the shared memory carry.

    Batches come from the workers through shared memory, of which a container has 64 MB by default.

    Args:
        num_workers: number that is asked for.
        num_batches: number of batches to load.
        batch_bytes: size of a batch.
        free_bytes: free shared memory; None: what this process finds.
    """
    count = min(num_workers, max(num_batches, 1), num_processors())
    if count == 0:
        return WorkerPlan(0, None)
    if (num_files := num_free_files()) < _MIN_FREE_FILES:
        return WorkerPlan(
            0,
            None,
            f"Only {num_files} more files can be opened, too few for workers that decode images: there are "
            "none, which is slower. Allow more: ulimit -n 4096.",
        )
    shared_bytes = _free_shared_bytes() if free_bytes is None else free_bytes
    if shared_bytes is None:
        return WorkerPlan(count, _PREFETCH)
    # One batch is being used and one is on its way; a tenth is for others.
    num_fitting = int(0.9 * shared_bytes / max(batch_bytes, 1)) - 2
    for prefetch in range(_PREFETCH, 0, -1):
        if count * prefetch <= num_fitting:
            return WorkerPlan(count, prefetch)
    fewer = max(num_fitting, 0)
    remark = (
        f"{SHARED_MEMORY} has {shared_bytes / _MIB:.0f} MiB free, too little for {count} workers and batches "
        f"of {batch_bytes / _MIB:.1f} MiB: {fewer or 'no'} worker{'s' * (fewer != 1)} will decode images, "
        f"which is slower. {_ADVICE}"
    )
    return WorkerPlan(fewer, 1 if fewer else None, remark)


def _free_shared_bytes() -> int | None:
    """Return this process's part of the free shared memory; None where its size is not known."""
    try:
        free_bytes = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None
    return free_bytes // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def sendable(tensor: Tensor) -> Tensor:
    """Return a tensor that can leave a worker: in shared memory there, itself elsewhere.

    What fails here is an error at once. Later, a thread of the worker would drop the batch, and the process
    that waits for it would wait for ever.

    Raises:
        UserError: if shared memory, or the number of open files, does not suffice.
    """
    if get_worker_info() is None:
        return tensor
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"A batch of images could not be handed over by {SHARED_MEMORY}: {error}. {_ADVICE}"
        ) from error
    return tensor


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return an iterator over `loader` whose workers end with it, and at the latest with this process.

    Raises:
        UserError: while iterating, if a worker was killed or sends nothing any more.
    """
    batches = _iterate(loader)
    _open_iterators().add(batches)
    return batches


def _iterate(loader: DataLoader[Any]) -> Generator[Any]:
    try:
        yield from loader
    except RuntimeError as error:
        text = _lost_text(str(error))
        if not text:
            raise
        raise UserError(text) from error


def _lost_text(message: str) -> str:
    """Return what happened to the workers, from an error of PyTorch; empty if nothing did."""
    if message.startswith("DataLoader timed out"):
        return (
            f"No batch came within {BATCH_TIMEOUT_S:.0f} s from the processes that decode images: the disk "
            "or network storage of the images does not answer, or the machine is overloaded. With "
            "data.workers=0 the command decodes them itself and shows where it waits."
        )
    if not message.startswith("DataLoader worker"):
        return ""
    if "Bus error" in message or "shared memory" in message:
        return f"A worker that decodes images ended because {SHARED_MEMORY} is full. {_ADVICE}"
    return (
        f"A worker that decodes images was killed: {message.split('. ')[0]}. Most often the memory is used "
        "up; give the process more, or choose fewer data.workers or a smaller batch_size."
    )


def ignore_stop_signals(worker: int) -> None:
    """Ignore stop signals in a worker: the training process still has to save a checkpoint.

    A pre-emption or Ctrl-C signals the whole process group. Workers without a parent exit by themselves.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@cache
def _open_iterators() -> WeakSet[Generator[Any]]:
    """Return the iterators whose workers may still run; those left when the process ends are closed.

    An error that nobody catches keeps its iterator until then. Python would next ask the workers to end by a
    signal, which they ignore, and wait for them.
    """
    iterators: WeakSet[Generator[Any]] = WeakSet()

    def close() -> None:
        for iterator in list(iterators):
            iterator.close()

    atexit.register(close)
    return iterators
