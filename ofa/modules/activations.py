"""Activation functions that elastic and static layers share."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ofa.common.errors import unknown_name

_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "none": nn.Identity,
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "none": lambda images: images,
}


def activation_module(name: str) -> nn.Module:
    """Return the module of activation `name`."""
    if name not in _MODULES:
        raise unknown_name("activation", name, _MODULES)
    return _MODULES[name]()


def activate(images: Tensor, name: str) -> Tensor:
    """Apply activation `name`."""
    return _FUNCTIONS[name](images)
