"""What a library computes wrongly, as an error before a training instead of a crash within it."""

from __future__ import annotations

import torch
from torch import nn

from ofa.common.errors import UserError

MIN_STRIDED_CHANNELS = 8


def check_strided_convolutions(network: nn.Module, device: torch.device) -> None:
    """Raise the error for convolutions whose gradient destroys memory on processors.

    PyTorch 2.14 (oneDNN) writes beyond its memory in the backward pass of a 1x1 convolution with a stride and
    2 to 7 input channels, in channels-last memory format: `benchmarks/strided_convolution.py` shows it.

    Args:
        network: network that is to be trained, or the smallest one of a supernet.
        device: training device; CUDA devices compute it right.

    Raises:
        UserError: naming the first such layer.
    """
    if device.type != "cpu":
        return
    for path, module in network.named_modules():
        if not isinstance(module, nn.Conv2d) or module.groups > 1:
            continue
        is_strided = max(module.kernel_size) == 1 and max(module.stride) > 1
        if is_strided and 1 < module.in_channels < MIN_STRIDED_CHANNELS:
            raise UserError(
                f"{path}, a 1x1 convolution with stride, has {module.in_channels} input channels; the "
                f"gradient of fewer than {MIN_STRIDED_CHANNELS} destroys memory in PyTorch's processor code. "
                "Keep more channels, for example with model.divisor=8, or train on a GPU."
            )
