"""Batch norm in training: which layers, their modes, and whether a batch has enough values for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.supernet.operators import ElasticBatchNorm2d

BATCH_NORMS = (ElasticBatchNorm2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Return the batch-norm layers of a network."""
    return [module for module in network.modules() if isinstance(module, BATCH_NORMS)]


def enter_training_mode(network: nn.Module, frozen_batch_norm: bool = False) -> None:
    """Put `network` into training mode; frozen batch norms stay in eval mode."""
    network.train()
    if frozen_batch_norm:
        for norm in batch_norms(network):
            norm.eval()


@torch.no_grad()
def values_per_image(network: nn.Module, compute: Callable[[Tensor], object], images: Tensor) -> int | None:
    """Return the smallest number of values per channel and image that a batch norm gets.

    Args:
        network: network whose layers are observed; its modes are restored.
        compute: computes the network, or one of its sub-networks.
        images: images of the smallest size, shape (n, channels, h, w).

    Returns:
        Height times width of the smallest feature map in front of a batch norm; None without batch norm.
    """
    counts: list[int] = []
    modes = {module: module.training for module in network.modules()}
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0][0, 0].numel()))
        for norm in batch_norms(network)
    ]
    try:
        network.eval()
        compute(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return min(counts, default=None)


def check_batch_statistics(
    num_values: Callable[[int], int | None],
    resolutions: Sequence[int],
    *,
    batch_size: int,
    num_local: int,
    num_calibration: int | None = None,
) -> None:
    """Raise the error for batches that leave a batch norm with a single value per channel.

    Args:
        num_values: takes a resolution in pixels and returns `values_per_image`.
        resolutions: sides of the training images in pixels, ascending.
        batch_size: images of a step of all processes.
        num_local: number of these images that share their statistics: those of one process, or all.
        num_calibration: number of images that recalibrate batch norm, if any.

    Raises:
        UserError: naming the numbers and what to change.
    """
    is_single = num_local == 1 or num_calibration == 1
    too_small = [r for r in resolutions if num_values(r) == 1] if is_single else []
    if not too_small:
        return
    resolution, problems = too_small[-1], []
    if num_local == 1:
        owner = "" if batch_size == 1 else " for each process"
        problems.append(f"batch_size is {batch_size}, one image{owner}; expected at least {2 * batch_size}.")
    if num_calibration == 1:
        problems.append("calibration_images is 1; expected at least 2.")
    larger = [r for r in resolutions if r > resolution]
    choice = f", or leave out the resolutions below {larger[0]} px" if larger else ""
    raise UserError(
        f"Batch norm needs two values per channel, and at {resolution} px the smallest feature map is 1 x 1: "
        f"{' '.join(problems)} Change that{choice}."
    )
