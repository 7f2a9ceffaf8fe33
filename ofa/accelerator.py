"""Where to compute: the device and the number of CPU threads."""

from __future__ import annotations

import torch

from ofa.errors import UserError, unknown_name


def choose_accelerator(name: str, threads: int | None) -> torch.device:
    """Return the device to compute on ("auto": CUDA if present) and set the CPU threads if given.

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
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
