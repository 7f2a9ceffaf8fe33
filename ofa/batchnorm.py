"""Batch-norm recalibration: running statistics belong to a sub-network and are recomputed for it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ofa.errors import UserError


class _Moments:
    """Mean and sum of squared deviations per channel, merged batch by batch (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def merge(self, count: int, mean: Tensor, population_variance: Tensor) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + population_variance * count + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total


@torch.no_grad()
def recalibrate_batchnorm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace all batch-norm running statistics of `network` by those of the given images.

    Each layer normalises by its batch statistics; what is stored is the mean and the population variance
    over *all* images of the layer's input, merged in float64. Train/eval modes are restored. If anything
    fails midway, the old statistics are put back.

    Args:
        network: changed in place.
        batches: image tensors on the network's device, shape (n, channels, h, w).

    Raises:
        UserError: if there is no batch, or a batch has a single value per channel.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    modes = {module: module.training for module in network.modules()}
    momenta = [layer.momentum for layer in layers]
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    moments = {layer: _Moments() for layer in layers}
    hooks = [layer.register_forward_hook(lambda m, i, _: _observe(moments[m], m, i[0])) for layer in layers]
    hooks += [layer.register_forward_pre_hook(_check_batch) for layer in layers]
    done = False
    try:
        network.eval()
        for layer in layers:
            layer.train()
            layer.momentum = 1.0
        for images in batches:
            network(images)
        if layers and moments[layers[0]].count == 0:
            raise UserError("No calibration images were given; batch norm needs at least one batch.")
        done = True
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum, buffers in zip(layers, momenta, kept, strict=True):
            layer.momentum = momentum
            for name, buffer in buffers.items():
                layer.get_buffer(name).copy_(buffer)
            if done:
                layer.get_buffer("running_mean").copy_(moments[layer].mean)
                layer.get_buffer("running_var").copy_(moments[layer].squares / moments[layer].count)
        for module, mode in modes.items():
            module.training = mode


def _check_batch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Raise the error for a batch whose variance batch norm cannot take."""
    (images,) = inputs
    if images.numel() == images.shape[1]:
        raise UserError(
            "A calibration batch has a single value per channel; use at least two images a batch."
        )


def _observe(moments: _Moments, layer: nn.BatchNorm2d, images: Tensor) -> None:
    """Merge the statistics that batch norm itself has just computed with momentum 1."""
    count = images.numel() // images.shape[1]
    unbiased = layer.get_buffer("running_var").double()
    moments.merge(count, layer.get_buffer("running_mean").double(), unbiased * ((count - 1) / count))
