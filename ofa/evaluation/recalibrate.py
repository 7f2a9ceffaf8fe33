"""Batch-norm recalibration: recomputes the running statistics for one sub-network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError

# Values per chunk on a CPU, so that the deviations from the mean fit in a core's cache.
_CHUNK = 2**17


class _Moments:
    """Mean and sum of squared deviations per channel in float64, merged chunk by chunk (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total


def batch_norms_of(network: nn.Module) -> list[nn.Module]:
    """Return the batch norms of a network that keep running statistics."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = (module for module in network.modules() if isinstance(module, kinds))
    return [norm for norm in norms if norm.running_mean is not None]


@torch.no_grad()
def recalibrate_batchnorm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace all batch-norm running statistics of `network` by those of the given images.

    Each layer normalises by its batch statistics; the stored values are the mean and population variance of
    its input over *all* images, merged in float64. Train/eval modes are restored. After an error the old
    statistics are restored. A last batch of a single image, which may have a single value per channel, is
    joined to the one before.

    Args:
        network: network, changed in place.
        batches: image tensors on the network's device, shape (n, channels, h, w).

    Raises:
        UserError: if there is no batch, or a batch has a single value per channel.
    """
    layers = batch_norms_of(network)
    modes = {module: module.training for module in network.modules()}
    saved_buffers = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    moments = {layer: _Moments() for layer in layers}
    hooks = [layer.register_forward_pre_hook(lambda m, i: _observe(moments[m], m, i[0])) for layer in layers]
    is_done = False
    try:
        network.eval()
        for images in _joined(batches):
            network(images)
        if layers and moments[layers[0]].count == 0:
            raise UserError("No calibration images were given; batch norm needs at least one batch.")
        is_done = True
    finally:
        for hook in hooks:
            hook.remove()
        for layer, buffers in zip(layers, saved_buffers, strict=True):
            for name, buffer in buffers.items():
                layer.get_buffer(name).copy_(buffer)
            if is_done:
                _store(layer, moments[layer])
        for module, mode in modes.items():
            module.training = mode


def _joined(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield batches; a last one of a single image is joined to the one before."""
    previous = None
    for images in batches:
        if previous is not None and len(images) > 1:
            yield previous
        elif previous is not None:
            images = torch.cat([previous, images])
        previous = images
    if previous is not None:
        yield previous


def _observe(moments: _Moments, layer: nn.Module, images: Tensor) -> None:
    """Merge the statistics of a batch, and make the layer, in eval mode, normalise by them."""
    if images.numel() == images.shape[1]:
        raise UserError(
            "A calibration batch has a single value per channel; use at least two images a batch."
        )
    batch = _moments_of(images)
    moments.merge(batch.count, batch.mean, batch.squares)
    _store(layer, batch)


def _store(layer: nn.Module, moments: _Moments) -> None:
    """Write mean and population variance into the running statistics of `layer`."""
    layer.get_buffer("running_mean").copy_(moments.mean)
    layer.get_buffer("running_var").copy_(moments.squares / moments.count)


def _moments_of(images: Tensor) -> _Moments:
    """Return the moments per channel of values (n, channels, ...), such as images.

    In channels-last format, PyTorch's batch norm on a CPU sums a channel's values in plain float32, which can
    lose four of seven digits. Chunks with two passes each keep them, at a similar cost.
    """
    moments, count = _Moments(), images.numel() // images.shape[1]
    if images.device.type != "cpu":
        variance, mean = torch.var_mean(images.float(), (0, *range(2, images.dim())), correction=0)
        moments.merge(count, mean.double(), variance.double() * count)
        return moments
    # Shape (values, channels); a view in channels-last memory format.
    rows = images.movedim(1, -1).flatten(0, -2).float()
    for chunk in torch.split(rows, max(1, _CHUNK // images.shape[1])):
        mean = chunk.mean(0)
        squares = (chunk - mean).square_().sum(0)
        moments.merge(len(chunk), mean.double(), squares.double())
    return moments
