"""`TensorSlices`: the parts of the full tensors that a sub-network uses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ofa.graph.selection import Selection
from ofa.graph.structure import Group, Indices, Key
from ofa.supernet.slicing import transform_kernel

# Indices of slices are kept for so many combinations of an axis and numbers of units.
_MAX_CACHED = 10_000
Matrices = Callable[[str], Sequence[Tensor]]
"""Returns the transforms of a weight's kernels, from the largest smaller kernel downwards."""
Pick = tuple[int, int] | Tensor | None


class TensorSlices:
    """The one slicing function of a user's model: its forward pass and extraction both use it."""

    def __init__(
        self,
        groups: Sequence[Group],
        shapes: Mapping[str, Sequence[int]],
        other_names: Mapping[str, Sequence[str]],
        copied: Collection[str] = (),
    ) -> None:
        """Sort the axes that groups touch by tensor.

        Args:
            groups: groups of units.
            shapes: full shape of each parameter and buffer.
            other_names: the other names of tensors that have several.
            copied: names of tensors whose slices are copied.
        """
        self._copied = copied
        self._shapes, self._other_names = shapes, other_names
        self._axes: dict[str, dict[int, list[int]]] = {}
        self._groups = groups
        for index, group in enumerate(groups):
            for name, axis in group.axes:
                self._axes.setdefault(name, {}).setdefault(axis, []).append(index)
        self._cache: dict[tuple[Key, tuple[int, ...], torch.device], Pick] = {}

    def tensors(
        self, state: Mapping[str, Tensor], selection: Selection, matrices: Matrices | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors that differ from the full ones, by name; views where possible.

        Args:
            state: full parameters and buffers.
            selection: the sub-network.
            matrices: transforms of elastic kernels; None crops them.
        """
        result: dict[str, Tensor] = {}
        skipped = tuple(f"{name}." for name in selection.skipped)
        for name, axes in self._axes.items():
            if skipped and name.startswith(skipped):
                continue
            tensor = state[name]
            for axis, indices in axes.items():
                tensor = self._sliced(tensor, (name, axis), indices, selection.counts)
            if tensor is not state[name]:
                result[name] = tensor.contiguous() if name in self._copied else tensor
        for name, side in selection.kernels.items():
            weight = result.get(name, state[name])
            if side < weight.shape[-1] and not (skipped and name.startswith(skipped)):
                result[name] = _smaller_kernel(weight, side, matrices(name) if matrices else None)
        for name in [name for name in self._other_names if name in result]:
            result |= dict.fromkeys(self._other_names[name], result[name])
        return result

    def _sliced(self, tensor: Tensor, key: Key, groups: Sequence[int], counts: Sequence[int]) -> Tensor:
        kept = tuple(counts[index] for index in groups)
        cache_key = (key, kept, tensor.device)
        if cache_key not in self._cache:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[cache_key] = self._pick(key, groups, kept, tensor.device)
        pick = self._cache[cache_key]
        if pick is None:
            return tensor
        return tensor.narrow(key[1], *pick) if isinstance(pick, tuple) else tensor.index_select(key[1], pick)

    def _pick(self, key: Key, groups: Sequence[int], kept: Sequence[int], device: torch.device) -> Pick:
        """Return start and length of the kept indices, or the indices; None for all."""
        is_kept = np.ones(self._shapes[key[0]][key[1]], bool)
        for index, count in zip(groups, kept, strict=True):
            is_kept[self._groups[index].axes[key][count:].ravel()] = False
        indices = np.flatnonzero(is_kept)
        if len(indices) == len(is_kept):
            return None
        if indices[-1] - indices[0] == len(indices) - 1:
            return int(indices[0]), len(indices)
        return torch.from_numpy(indices).to(device)


def _smaller_kernel(weight: Tensor, side: int, matrices: Sequence[Tensor] | None) -> Tensor:
    if matrices is not None:
        return transform_kernel(weight, list(matrices), side)
    start = (weight.shape[-1] - side) // 2
    return weight[:, :, start : start + side, start : start + side]


def reordered(
    state: Mapping[str, Tensor], groups: Sequence[Group], orders: Sequence[Indices]
) -> dict[str, Tensor]:
    """Return the tensors that change if the units of each group are put into another order.

    Args:
        state: full parameters and buffers.
        groups: groups of units.
        orders: new orders of the units, one per group: the old position of each.
    """
    picks: dict[Key, Indices] = {}
    for group, order in zip(groups, orders, strict=True):
        for (name, axis), indices in group.axes.items():
            pick = picks.setdefault((name, axis), np.arange(state[name].shape[axis]))
            pick[indices.ravel()] = indices[order].ravel()
    result: dict[str, Tensor] = {}
    for (name, axis), pick in picks.items():
        tensor = result.get(name, state[name])
        result[name] = tensor.index_select(axis, torch.from_numpy(pick).to(tensor.device))
    return result
