"""Precision of training: fp32, or automatic mixed precision in bf16 or fp16."""

from __future__ import annotations

import torch

from ofa.errors import UserError, unknown_name

PRECISIONS = ("fp32", "bf16", "fp16")


def check_precision(precision: str, device: torch.device | None = None) -> None:
    """Raise the error for an unknown precision, or one that `device` cannot train in."""
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision == "fp16" and device is not None and device.type != "cuda":
        raise UserError("precision fp16 needs a CUDA device; choose fp32 or bf16 on this one.")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context of forward passes."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps small gradients of fp16 above zero; for other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
