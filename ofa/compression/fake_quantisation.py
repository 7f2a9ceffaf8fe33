"""Training that computes with rounded numbers, as an engine will: quantisation-aware training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from ofa.common.errors import UserError

_INPUTS = "quantised_inputs"
_MOMENTUM = 0.05


def quantised_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the convolutions and linear layers, whose weights and inputs engines quantise.

    Raises:
        UserError: if there are none.
    """
    names = tuple(name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    if not names:
        raise UserError("The network has no convolution or linear layer whose weights could be quantised.")
    return names


@contextmanager
def fake_quantised(
    network: nn.Module, names: Sequence[str], bits: int
) -> Iterator[dict[str, tuple[float, float]]]:
    """Let layers compute with rounded weights and inputs while the network is trained.

    Weights have one scale for each output and symmetric steps, which a batch norm after them does not change
    when an engine merges it into them; inputs have one range, a moving average of the batches, in 256 steps.
    Gradients pass the rounding unchanged (Jacob et al. 2018). At the end the weights are plain parameters
    again, with rounded values, which an engine rounds to themselves.

    Args:
        network: network, changed in place.
        names: layers; see `quantised_layers`.
        bits: bits of a weight, one of `WEIGHT_BITS`; inputs have 8.

    Yields:
        The range of the inputs of each layer, from the end on.
    """
    handles = []
    ranges: dict[str, tuple[float, float]] = {}
    for name in names:
        layer = network.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", _RoundedWeight(bits))
        # A part of the layer, so that its range is in the state of a training that goes on.
        layer.add_module(_INPUTS, _RoundedInputs().to(next(layer.parameters()).device))
        handles.append(layer.register_forward_pre_hook(_round_inputs))
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()
        for name in names:
            layer = network.get_submodule(name)
            ranges[name] = layer.get_submodule(_INPUTS).range  # type: ignore[assignment]
            delattr(layer, _INPUTS)
            parametrize.remove_parametrizations(layer, "weight")


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """Return a weight (out, ...) rounded to `bits`, with one scale for each output; in float32."""
    largest_step = 2 ** (bits - 1) - 1
    weight = weight.float()
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny * 1e3) / largest_step
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(
        weight, scale, zeros, 0, -largest_step, largest_step
    )
    return rounded


class _RoundedWeight(nn.Module):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self._bits = bits

    @override
    def forward(self, weight: Tensor) -> Tensor:
        return rounded_weight(weight, self._bits).to(weight.dtype)


class _RoundedInputs(nn.Module):
    """Rounds values to 256 steps between their running minimum and maximum, which include 0."""

    minimum: Tensor
    maximum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.zeros(()))
        self.register_buffer("maximum", torch.zeros(()))

    @property
    def range(self) -> tuple[float, float]:
        """The running minimum and maximum."""
        return float(self.minimum), float(self.maximum)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        values = inputs.float()
        if self.training:
            self._follow(values.detach())
        scale = ((self.maximum - self.minimum) / 255).clamp(min=1e-8)
        zero_point = (-self.minimum / scale).round().clamp(0, 255).to(torch.int32)
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255)
        return rounded.to(inputs.dtype)

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        is_new = torch.eq(self.minimum, self.maximum)
        share = torch.where(is_new, 1.0, _MOMENTUM)
        self.minimum.lerp_(low.clamp(max=0), share)
        self.maximum.lerp_(high.clamp(min=0), share)


def _round_inputs(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rounding = layer.get_submodule(_INPUTS)
    return (rounding(inputs[0]), *inputs[1:])
