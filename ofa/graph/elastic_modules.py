"""Modules of a user's network whose sizes follow from the tensors that are in place during a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

# One class of each kind, so that copies of a network share them.
_ELASTIC: dict[tuple[type[nn.Module], bool], type[nn.Module]] = {}
_SKIPPABLE: dict[type[nn.Module], type[nn.Module]] = {}
_SKIPPED: ContextVar[frozenset[str]] = ContextVar("skipped", default=frozenset())


@contextmanager
def skipping(blocks: frozenset[str]) -> Iterator[None]:
    """Let blocks return their input within the context."""
    token = _SKIPPED.set(blocks)
    try:
        yield
    finally:
        _SKIPPED.reset(token)


def make_sizes_follow(model: nn.Module, kernels: Mapping[str, int], blocks: frozenset[str]) -> None:
    """Give the layers of `model` classes whose sizes follow from their tensors, in place.

    Args:
        model: a copy of the user's network.
        kernels: side of the full kernel of each weight whose kernel is elastic.
        blocks: modules that may be left out.
    """
    for name, module in model.named_modules():
        full_kernel = kernels.get(f"{name}.weight" if name else "weight")
        kind: type[nn.Module] = type(module)
        layer_class = _elastic_class(kind, full_kernel is not None)
        if layer_class is not None and getattr(module, "weight", None) is not None:
            for attribute in _ATTRIBUTES[_layer_kind(kind)]:
                module.__dict__[f"_full_{attribute}"] = module.__dict__.get(attribute)
            module.__dict__["_full_shape"] = tuple(module.weight.shape)
            if full_kernel is not None:
                module.__dict__["_full_padding"] = module.__dict__["padding"]
            module.__class__ = layer_class
        if name in blocks:
            module.__dict__["_block_name"] = name
            kind = type(module)
            module.__class__ = _skippable_class(kind)


_ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    _ConvNd: ("groups", "in_channels", "out_channels"),
    nn.Linear: ("in_features", "out_features"),
    _NormBase: ("num_features",),
    nn.LayerNorm: ("normalized_shape",),
    nn.RMSNorm: ("normalized_shape",),
    nn.GroupNorm: ("num_channels",),
}


def _layer_kind(kind: type[nn.Module]) -> type[nn.Module]:
    return next(base for base in _ATTRIBUTES if issubclass(kind, base))


def _elastic_class(kind: type[nn.Module], has_elastic_kernel: bool) -> type[nn.Module] | None:
    """Return a subclass whose sizes are properties of the tensors in place; None for other modules."""
    if not issubclass(kind, tuple(_ATTRIBUTES)):
        return None
    if (kind, has_elastic_kernel) in _ELASTIC:
        return _ELASTIC[kind, has_elastic_kernel]
    base = _layer_kind(kind)
    attributes: dict[str, Any] = {name: property(_SIZES[base][name]) for name in _ATTRIBUTES[base]}
    if has_elastic_kernel:
        attributes["padding"] = property(_padding)
    return _ELASTIC.setdefault(
        (kind, has_elastic_kernel), type(f"Elastic{kind.__name__}", (kind,), attributes)
    )


def _skippable_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass whose forward returns its first argument while its block is left out."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._block_name in _SKIPPED.get():
            return args[0] if args else next(iter(kwargs.values()))
        return kind.forward(self, *args, **kwargs)

    if kind not in _SKIPPABLE:
        _SKIPPABLE[kind] = type(f"Skippable{kind.__name__}", (kind,), {"forward": forward})
    return _SKIPPABLE[kind]


def _groups(layer: Any) -> int:
    if layer._full_groups == 1:
        return 1
    return int(layer._full_groups * layer.weight.shape[0] // layer._full_shape[0])


def _channels(layer: Any, axis: int) -> int:
    """Return the number of outputs (axis 0) or inputs (axis 1) of a convolution."""
    weight_axis = 1 - axis if layer.transposed else axis
    size = int(layer.weight.shape[weight_axis])
    return size * _groups(layer) if weight_axis == 1 else size


def _padding(layer: Any) -> tuple[int, ...]:
    fall = (layer._full_shape[-1] - layer.weight.shape[-1]) // 2
    return tuple(padding - fall for padding in layer._full_padding)


def _num_features(layer: Any) -> int:
    tensor: Tensor | None = layer.running_mean if layer.running_mean is not None else layer.weight
    return layer._full_num_features if tensor is None else len(tensor)


_SIZES: dict[type[nn.Module], dict[str, Any]] = {
    _ConvNd: {
        "groups": _groups,
        "in_channels": lambda layer: _channels(layer, 1),
        "out_channels": lambda layer: _channels(layer, 0),
    },
    nn.Linear: {
        "in_features": lambda layer: int(layer.weight.shape[1]),
        "out_features": lambda layer: int(layer.weight.shape[0]),
    },
    _NormBase: {"num_features": _num_features},
    nn.LayerNorm: {"normalized_shape": lambda layer: tuple(layer.weight.shape)},
    nn.RMSNorm: {"normalized_shape": lambda layer: tuple(layer.weight.shape)},
    nn.GroupNorm: {"num_channels": lambda layer: len(layer.weight)},
}


def set_sizes(module: nn.Module, full_shape: tuple[int, ...], has_elastic_kernel: bool) -> None:
    """Set the sizes that a layer states of itself to those of its new tensors.

    Args:
        module: a layer of the user's network whose tensors are already the new ones.
        full_shape: full shape of its weight.
        has_elastic_kernel: whether its padding follows from the kernel.
    """
    if not isinstance(module, tuple(_ATTRIBUTES)):
        return
    kind = _layer_kind(type(module))
    view = _SizeView(module, full_shape)
    values = {name: _SIZES[kind][name](view) for name in _ATTRIBUTES[kind]}
    if has_elastic_kernel and isinstance(module, _ConvNd):
        padding = _padding(view)
        values |= {"padding": padding, "kernel_size": tuple(module.weight.shape[2:])}
        values["_reversed_padding_repeated_twice"] = [p for p in reversed(padding) for _ in range(2)]
    for name, value in values.items():
        setattr(module, name, value)


class _SizeView:
    """A layer with its full sizes under the names that the size functions use."""

    def __init__(self, module: nn.Module, full_shape: tuple[int, ...]) -> None:
        self._module, self._full_shape = module, full_shape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name.removeprefix("_full_"))
