"""Precision of training: fp32, or automatic mixed precision in bf16 or fp16."""

from __future__ import annotations

import torch

from ofa.common.errors import UserError

EMULATED = "note: this device has no bf16 instructions and emulates them; precision fp32 is probably faster"


def check_precision(precision: str, device: torch.device) -> None:
    """Raise the error for a precision that `device` cannot train in."""
    if precision == "fp16" and device.type != "cuda":
        raise UserError("precision fp16 needs a CUDA device; choose fp32 or bf16 on this one.")


def emulates(precision: str, device: torch.device) -> bool:
    """Return whether `device` has no instructions for `precision` and computes it through fp32, slowly."""
    if precision != "bf16":
        return False
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    # Older versions of PyTorch lack this function.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    bf16_flags = [has for name, has in capabilities.items() if "bf16" in name]
    return bool(bf16_flags) and not any(bf16_flags)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the autocast context of forward passes."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaler that keeps small fp16 gradients above zero; it is inactive in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
