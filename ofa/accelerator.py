"""Where to compute: the device and the number of CPU threads."""

from __future__ import annotations

import torch

from ofa.distributed import local_rank
from ofa.errors import UserError, unknown_name


def choose_accelerator(name: str, threads: int | None) -> torch.device:
    """Return the device to compute on ("auto": CUDA if present) and set the CPU threads if given.

    Each process of a machine takes the CUDA device of its number.

    Raises:
        UserError: for an unknown name, or cuda without a CUDA device.
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
        return torch.device("cpu")
    device = torch.device("cuda", local_rank() % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
