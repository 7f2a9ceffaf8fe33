"""Zeros in weights, N of M along the input channels or anywhere, that a training keeps; and in inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.compression.settings import SparsePattern


def pattern_obstacle(pattern: SparsePattern, layer: nn.Module) -> str | None:
    """Return why the weights of a layer cannot have the pattern; None if they can."""
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return "neither convolution nor linear layer"
    in_channels = layer.weight.shape[1]
    if pattern.block is not None and in_channels % pattern.block:
        return f"{in_channels} inputs a group are no multiple of {pattern.block}"
    return None


def pattern_mask(pattern: SparsePattern, weight: Tensor) -> Tensor:
    """Return where a weight (out, in, ...) stays: False at the smallest of each block or of the layer."""
    rows = weight.detach().abs().movedim(1, -1)
    blocks = rows.reshape(1, -1) if pattern.block is None else rows.reshape(-1, pattern.block)
    num_zeros = int(pattern.share * blocks.shape[1])
    mask = torch.ones_like(blocks, dtype=torch.bool)
    mask.scatter_(1, blocks.argsort(dim=1, stable=True)[:, :num_zeros], value=False)
    return mask.reshape(rows.shape).movedim(-1, 1)


def sparse_layers(network: nn.Module, pattern: SparsePattern) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the layers that can have a pattern, and why the other convolutions and linear layers cannot.

    Raises:
        UserError: if no layer can have it.
    """
    names, obstacles = [], {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if obstacle := pattern_obstacle(pattern, layer):
                obstacles[name] = obstacle
            else:
                names.append(name)
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in obstacles.items())
        raise UserError(f"No layer can have zeros so that {pattern.text}. {reasons}")
    return tuple(names), obstacles


def check_sparse_layers(network: nn.Module, names: Sequence[str]) -> None:
    """Raise the error for names that are no convolutions or linear layers of a network.

    Raises:
        UserError: naming them.
    """
    layers = dict(network.named_modules())
    unknown_names = [name for name in names if not isinstance(layers.get(name), nn.Conv2d | nn.Linear)]
    if unknown_names:
        raise UserError(f"The network has no convolution or linear layer {listed_names(unknown_names)}.")


@torch.no_grad()
def make_sparse(network: nn.Module, pattern: SparsePattern, names: Sequence[str]) -> None:
    """Set the smallest weights of layers to zero, in place, and let them read the largest inputs alone."""
    for name in names:
        weight = _weight(network, name)
        weight.masked_fill_(~pattern_mask(pattern, weight), 0.0)
    make_inputs_sparse(network, pattern, names)


def make_inputs_sparse(network: nn.Module, pattern: SparsePattern | None, names: Sequence[str]) -> None:
    """Let layers read the largest of their inputs alone, in place; all of them without such a pattern.

    What they read is chosen for each image and place anew. No parameter tells of it, so a network that is
    made anew needs this call.

    Raises:
        UserError: if a layer cannot have the pattern.
    """
    if pattern is not None and pattern.num_zero_inputs:
        for name in names:
            if obstacle := pattern_obstacle(pattern, network.get_submodule(name)):
                raise UserError(f"{name} cannot read inputs of which some are zero: {obstacle}.")
        for name in names:
            network.get_submodule(name).register_forward_pre_hook(partial(_largest_read, pattern))


def _largest_read(pattern: SparsePattern, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    channels = inputs[0].dim() - 1 if isinstance(layer, nn.Linear) else 1
    return (largest_inputs(pattern, inputs[0], channels), *inputs[1:])


def largest_inputs(pattern: SparsePattern, values: Tensor, dim: int) -> Tensor:
    """Return values with zeros at the smallest of each block along the dimension at position `dim`."""
    assert pattern.block is not None
    # An exporter misreads negative positions.
    last = values.dim() - 1
    rows = values.movedim(dim, last)
    blocks = rows.reshape(*rows.shape[:-1], -1, pattern.block)
    indices = blocks.abs().topk(pattern.block - pattern.num_zero_inputs, dim=-1).indices
    mask = torch.zeros_like(blocks).scatter(-1, indices, 1.0)
    return (blocks * mask).reshape(rows.shape).movedim(last, dim)


@contextmanager
def zeros_kept(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Keep the weights of layers that are zero so while the network is trained.

    The mask is a parametrisation, so that momentum, weight decay and mixed precision cannot revive a weight,
    and a part of the state dict, so that a training that goes on has it. At the end the weights are plain
    parameters again.
    """
    for name in names:
        layer = network.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", _Mask(_weight(network, name) != 0))
    try:
        yield
    finally:
        for name in names:
            layer = network.get_submodule(name)
            # Whoever parametrised the weight within has removed the mask, too.
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight")


class _Mask(nn.Module):
    """A weight with zeros at fixed places."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    @override
    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)


def _weight(network: nn.Module, name: str) -> Tensor:
    weight = network.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight
