"""Where to compute: the device and the number of CPU threads."""

from __future__ import annotations

import ctypes
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ofa.common.distributed import local_rank
from ofa.common.errors import UserError, unknown_name
from ofa.common.machine import num_processors
from ofa.common.threads import blas_threads, check_threads, set_blas_threads

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def choose_accelerator(name: str, threads: int | None) -> torch.device:
    """Return the device to compute on ("auto": CUDA if present) and set the CPU threads if given.

    Each process of a machine takes the CUDA device of its number.

    Raises:
        UserError: for an unknown name, cuda without a CUDA device, or more processes than CUDA devices.
    """
    names = ("auto", "cpu", "cuda")
    if name not in names:
        raise unknown_name("accelerator", name, names)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("accelerator is cuda but no CUDA device is present; choose auto or cpu.")
    check_threads(threads)
    # A container sees all processors of its host.
    threads = threads or min(torch.get_num_threads(), num_processors())
    if threads != torch.get_num_threads():
        set_threads(threads)
    if name == "cpu" or not torch.cuda.is_available():
        _keep_freed_memory()
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank() >= count:
        raise UserError(
            f"This machine has {count} CUDA device{'s' * (count != 1)} but more processes; start one process "
            f"per device (--nproc-per-node={count}), or choose accelerator=cpu."
        )
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


def set_threads(threads: int) -> None:
    """Let PyTorch, and the BLAS of NumPy and SciPy, use `threads` CPU threads from now on."""
    torch.set_num_threads(threads)
    set_blas_threads(threads)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let PyTorch use `threads` CPU threads (None: leave the number), and restore the number afterwards."""
    old_threads = torch.get_num_threads()
    torch.set_num_threads(old_threads if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(old_threads)


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Apply `set_threads` (None: change nothing), and restore the numbers afterwards.

    Raises:
        UserError: if `threads` is below 1.
    """
    check_threads(threads)
    with torch_threads(threads), blas_threads(threads):
        yield


def _keep_freed_memory() -> None:
    """Let malloc keep freed memory, so that the next step does not fault its pages in again.

    Only glibc needs this; with its defaults a training step of small images spends a tenth of its time there.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(parameter, 2**30)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory of this process in MB: of a CUDA `device`, or else of the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # In kilobytes; on macOS in bytes.
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
