"""Two-pass float64 statistics of the inputs of batch-norm layers; needs only PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def two_pass_statistics(network: nn.Module, recalibrate: Callable[[], None]) -> dict[str, float]:
    """Return the errors of the running statistics of `network` after `recalibrate`.

    The mean and population variance of each layer's input, over all images, are computed in float64: the mean
    in one pass, the squared deviations in another. The layers see the same inputs each time.

    Returns:
        Largest error over all channels of all layers: `mean_error` in standard deviations, `variance_error`
        as share of the variance; and the medians of both.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    zeros = [torch.zeros(layer.num_features, dtype=torch.float64) for layer in layers]
    means = _averages(layers, recalibrate, zeros, 1)
    variances = _averages(layers, recalibrate, means, 2)
    spread = torch.cat(variances).clamp_min(1e-20)
    found_means = torch.cat([layer.get_buffer("running_mean") for layer in layers]).double()
    found_variances = torch.cat([layer.get_buffer("running_var") for layer in layers]).double()
    mean_errors = (found_means - torch.cat(means)).abs() / spread.sqrt()
    variance_errors = (found_variances - spread).abs() / spread
    return {
        "mean_error": float(mean_errors.max()),
        "mean_error_median": float(mean_errors.median()),
        "variance_error": float(variance_errors.max()),
        "variance_error_median": float(variance_errors.median()),
    }


def _averages(
    layers: list[nn.BatchNorm2d], recalibrate: Callable[[], None], centres: list[Tensor], power: int
) -> list[Tensor]:
    """Return, per layer and channel, the average of (input - centre) ** power in a run of `recalibrate`."""
    sums = [torch.zeros_like(centre) for centre in centres]
    counts = [0] * len(layers)

    def hook(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            counts[index] += inputs[0].numel() // inputs[0].shape[1]
            for images in torch.split(inputs[0], 8):
                values = images.double() - centres[index][:, None, None]
                sums[index] += (values if power == 1 else values.square_()).sum((0, 2, 3))

        return add

    handles = [layer.register_forward_pre_hook(hook(index)) for index, layer in enumerate(layers)]
    try:
        recalibrate()
    finally:
        for handle in handles:
            handle.remove()
    return [total / count for total, count in zip(sums, counts, strict=True)]
