"""The example of a conversion: what it must be, its resolution, and the same at another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ofa.common.errors import UserError
from ofa.graph.capture import tensors_in


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a network in training mode and inputs that it cannot read.

    Raises:
        UserError: saying what was found and what is expected.
    """
    if model.training:
        raise UserError(
            "The network is in training mode; the conversion compares outputs, which batch norm and dropout "
            "change there: call model.eval() before. The supernet can be trained afterwards."
        )
    tensors = tensors_in((args, kwargs))
    if not tensors:
        raise UserError("The example holds no tensor; expected the inputs of the network.")
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        raise UserError("The network has no parameters; nothing of it may vary.")
    for tensor in tensors:
        if tensor.device != parameter.device:
            raise UserError(
                f"The example is on {tensor.device} and the network on {parameter.device}; "
                "expected both on one device."
            )
        if tensor.is_floating_point() and tensor.dtype != parameter.dtype:
            raise UserError(
                f"The example is of type {tensor.dtype} and the network of {parameter.dtype}; "
                "expected both of one type."
            )
        if not tensor.dim() or not len(tensor):
            raise UserError("An input of the example has no batch axis, or an empty one.")


def side_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the resolution of an example: the last axis of its first image, or of its first input."""
    tensors = tensors_in((args, kwargs))
    images: list[Tensor] = [tensor for tensor in tensors if tensor.dim() == 4] or tensors
    return int(images[0].shape[-1])


def batch_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the number of images of an example: the length of its first argument."""
    first = args[0] if args else next(iter(kwargs.values()))
    return len(first) if isinstance(first, (Tensor, list, tuple)) else len(tensors_in(first)[0])


def resized(inputs: Any, side: int) -> Any:
    """Return inputs whose images are scaled to a width of `side` pixels."""
    return pytree.tree_map(partial(_resized, side=side), inputs)


def _resized(leaf: Any, side: int) -> Any:
    if isinstance(leaf, Tensor) and leaf.dim() == 4 and leaf.shape[-1] != side:
        height = round(leaf.shape[-2] * side / leaf.shape[-1])
        return F.interpolate(leaf, (height, side), mode="bilinear", antialias=True)
    return leaf
