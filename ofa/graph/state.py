"""Parameters and buffers of a user's network by name, those that are not saved and second names included."""

from __future__ import annotations

from torch import Tensor, nn


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by all of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def other_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return, per name of a tensor that has several, the others."""
    names: dict[int, list[str]] = {}
    for name, tensor in state_of(model).items():
        names.setdefault(id(tensor), []).append(name)
    return {
        name: tuple(other for other in same if other != name)
        for same in names.values()
        if len(same) > 1
        for name in same
    }
