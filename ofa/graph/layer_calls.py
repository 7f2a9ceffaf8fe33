"""`LayerCalls`: convolutions and linear maps of a running network, as modules, functions or in a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv2d, torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
_LINEAR_MAPS = (F.linear, torch.ops.aten.linear.default)


@dataclass(frozen=True)
class LayerCall:
    """One call of a convolution of images, or of a linear map.

    Attributes:
        inputs: shape (n, channels, h, w), or (..., features) of a linear map.
        weight: shape (outputs, inputs / groups, k, k), or (outputs, inputs).
        bias: shape (outputs,).
        groups: groups of a convolution.
        window: arguments dilation, padding and stride of `torch.nn.functional.unfold`; None of a linear map.
    """

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    groups: int
    window: dict[str, tuple[int, int]] | None

    def input_rows(self, num_images: int, start: int, stop: int) -> Tensor:
        """Return what some images' outputs are computed from: (images, places, inputs of all groups)."""
        if self.window is None:
            return _by_image(self.inputs, num_images)[start:stop]
        parts = len(self.inputs) // num_images
        inputs = self.inputs[start * parts : stop * parts]
        patches = F.unfold(inputs, self.weight.shape[2:], **self.window)
        return _by_image(patches.movedim(1, 2), len(inputs) // parts)

    def output_rows(self, outputs: Tensor, num_images: int) -> Tensor:
        """Return outputs of the call as (images, places, outputs)."""
        return _by_image(outputs if self.window is None else outputs.flatten(2).movedim(1, 2), num_images)

    def is_by_image(self, num_images: int) -> bool:
        """Return whether the call has the same number of places for each of so many images."""
        if self.window is None:
            return self.inputs.numel() // self.inputs.shape[-1] % num_images == 0
        return self.inputs.dim() == 4 and len(self.inputs) % num_images == 0


class LayerCalls(TorchFunctionMode):
    """While it is active, hands each call with a parameter of a network as its weight to two functions.

    It does not matter whether a module, a function or a captured graph makes the call.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        before: Callable[[str, LayerCall], None] | None = None,
        after: Callable[[str, LayerCall, Tensor], None] | None = None,
    ) -> None:
        """Take the network and the functions.

        Args:
            network: the network that will be called.
            before: called with the name of the weight before the outputs are computed; may change the weight.
            after: called with the outputs as well.
        """
        super().__init__()
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._before, self._after = before, after

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of PyTorch."""
        kwargs = kwargs or {}
        call = _layer_call(func, args, kwargs)
        name = None if call is None else self._names.get(id(call.weight))
        if call is None or name is None:
            return func(*args, **kwargs)
        if self._before is not None:
            self._before(name, call)
        outputs = func(*args, **kwargs)
        if self._after is not None:
            self._after(name, call, outputs)
        return outputs


def _layer_call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LayerCall | None:
    """Return the call of a convolution or linear map; None for any other function."""
    if func not in (*_CONVOLUTIONS, *_LINEAR_MAPS):
        return None
    inputs, *others = args or (kwargs["input"],)
    settings = {name: value for name, value in kwargs.items() if name != "input"}
    return (_linear_map if func in _LINEAR_MAPS else _convolution)(inputs, *others, **settings)


def _linear_map(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> LayerCall:
    return LayerCall(inputs, weight, bias, 1, None)


def _convolution(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] | str = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
) -> LayerCall | None:
    """Return a call with these arguments of `torch.conv2d`; None if it pads the two sides differently."""
    dilations = _pair(dilation)
    if padding == "same":
        reach = [size * (side - 1) for size, side in zip(dilations, weight.shape[2:], strict=True)]
        if any(size % 2 for size in reach):
            return None
        padding = [size // 2 for size in reach]
    elif isinstance(padding, str):
        padding = 0
    window = {"dilation": dilations, "padding": _pair(padding), "stride": _pair(stride)}
    return LayerCall(inputs, weight, bias, groups, window)


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(value)
    return values[0], values[-1]


def _by_image(rows: Tensor, num_images: int) -> Tensor:
    """Return rows (..., features) as (images, places, features)."""
    return rows.reshape(num_images, -1, rows.shape[-1])
