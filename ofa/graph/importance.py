"""Importance of units: which of them a narrow sub-network keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ofa.common.errors import UserError
from ofa.graph.structure import Group

Importance = Callable[[Group, Mapping[str, Tensor]], Tensor]
"""Returns the importance of each unit of a group, shape (num_units,), from parameters by name."""


def l1_importance(group: Group, state: Mapping[str, Tensor]) -> Tensor:
    """Return the L1 norm of the weights that read each unit (Cai et al. 2020, sec. 3.3).

    Where no layer reads the units, all tensors that they touch count.
    """
    parts = [part for part in group.touched if part.is_read] or group.touched
    return _summed(group, [(part.tensor, part.axis, state[part.tensor].detach().abs()) for part in parts])


def taylor_importance(group: Group, state: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of |weight x gradient| of each unit (Molchanov et al. 2019, eq. 8; over all weights).

    Raises:
        UserError: if no parameter that the units touch has a gradient: run a backward pass before.
    """
    parts = [(p.tensor, p.axis, state[p.tensor]) for p in group.touched if state[p.tensor].grad is not None]
    if not parts:
        raise UserError(f"No weight of {group.name} has a gradient; run the backward pass of a batch before.")
    products = [(name, axis, (t.detach() * t.grad).abs()) for name, axis, t in parts if t.grad is not None]
    return _summed(group, products)


IMPORTANCES: Mapping[str, Importance] = {"l1": l1_importance, "taylor": taylor_importance}
"""All importances by their names in settings."""


def _summed(group: Group, values: list[tuple[str, int, Tensor]]) -> Tensor:
    """Return the sum of values over all indices of each unit."""
    total = torch.zeros(group.num_units)
    for name, axis, tensor in values:
        by_index = tensor.transpose(0, axis).flatten(1).sum(1) if tensor.dim() > 1 else tensor
        indices = torch.from_numpy(group.axes[name, axis])
        total += by_index.float().cpu()[indices].sum(1)
    return total
