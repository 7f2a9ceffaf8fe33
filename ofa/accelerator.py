"""Where to compute: the device and the number of CPU threads."""

from __future__ import annotations

import ctypes
import platform
import resource

import torch

from ofa.distributed import local_rank
from ofa.errors import UserError, unknown_name

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def choose_accelerator(name: str, threads: int | None) -> torch.device:
    """Return the device to compute on ("auto": CUDA if present) and set the CPU threads if given.

    Each process of a machine takes the CUDA device of its number.

    Raises:
        UserError: for an unknown name, cuda without a CUDA device, or more processes than CUDA devices.
    """
    known = ("auto", "cpu", "cuda")
    if name not in known:
        raise unknown_name("accelerator", name, known)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("accelerator is cuda but no CUDA device is present; choose auto or cpu.")
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; expected at least 1, or null for PyTorch's choice.")
    if threads is not None:
        torch.set_num_threads(threads)
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


def _keep_freed_memory() -> None:
    """Let malloc keep what tensors free, so that the next step does not fault its pages in again.

    Only glibc has this; with its defaults a training step of small images spends a tenth of its time there.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(parameter, 2**30)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that this process has held so far: of the device, or of the machine on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
