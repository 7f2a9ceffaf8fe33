"""Channels that zeros in weights have made useless, and networks without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.compression.facts import TensorShape
from ofa.graph.convert import make_elastic
from ofa.graph.extract import own_class
from ofa.graph.selection import Selection
from ofa.graph.state import other_names, state_of
from ofa.graph.structure import Group, Key

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_PER_CHANNEL = (nn.modules.batchnorm._NormBase,)

Flags = NDArray[np.bool_]


def removable_groups(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Group, ...]:
    """Return the groups of channels of which any may go, by the conversion of a user's network.

    Those that the network's own forward cannot compute with fewer channels are left out, and those that
    touch other tensors than weights of layers, biases and batch norms.

    Args:
        network: network on the CPU in eval mode.
        image_shape: (channels, height, width) of its images.

    Raises:
        UserError: if nothing of the network may vary, or it cannot be captured.
    """
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    structure = make_elastic(
        network, images, widths=(0.5, 1.0), kernel_sizes=(), depths=(1.0,), divisor=1, min_channels=2
    ).space.structure
    known = _known_tensors(network)
    return tuple(
        group
        for group in structure.groups
        if group.name not in structure.bound_groups and all(part.tensor in known for part in group.touched)
    )


def _known_tensors(network: nn.Module) -> set[str]:
    return {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, (*_LAYERS, *_PER_CHANNEL))
        for name in (*module._parameters, *module._buffers)
    }


@torch.no_grad()
def used_units(network: nn.Module, groups: Sequence[Group]) -> tuple[Flags, ...]:
    """Return which units of each group are used, at least one of each.

    A unit is not if all weights that make it are zero, or all that read it (Li et al. 2020). Between two
    layers one of both is enough; where residual blocks add to the same channels, all that make a channel, or
    all that read it, must agree. A unit that goes takes its weights in other layers with it, so that more may
    follow; this is repeated until nothing changes. What nothing reads can go without a change of the
    function, unless something without weights computes with all channels, as a mean over them.
    """
    weights = {
        f"{path}.weight" if path else "weight": module.weight.detach().cpu() != 0
        for path, module in network.named_modules()
        if isinstance(module, _LAYERS)
    }
    used = tuple(np.ones(group.num_units, bool) for group in groups)
    changed = True
    while changed:
        changed = False
        for group, flags in zip(groups, used, strict=True):
            gone = flags & ~_has_both_ends(group, weights)
            if gone.sum() == flags.sum():
                gone[np.flatnonzero(gone)[0]] = False
            for key, indices in group.axes.items():
                if key[0] in weights:
                    weights[key[0]].index_fill_(key[1], torch.from_numpy(indices[gone].ravel()), False)
            flags &= ~gone
            changed |= bool(gone.any())
    return used


def _has_both_ends(group: Group, weights: Mapping[str, Tensor]) -> Flags:
    """Return whether some weight makes a unit, and some weight reads it; unknown ends count as such."""
    ends: dict[bool, list[Flags]] = {True: [], False: []}
    for part in group.touched:
        weight = weights.get(part.tensor)
        if weight is not None and weight.ndim > 1:
            indices = torch.from_numpy(group.axes[part.tensor, part.axis])
            along = weight.movedim(part.axis, 0).flatten(1).any(1)
            ends[part.is_read].append(along[indices].any(1).numpy())
    result = np.ones(group.num_units, bool)
    for flags in ends.values():
        result &= np.logical_or.reduce(flags) if flags else True
    return result


@dataclass(frozen=True)
class CutNetwork:
    """A network without some of its channels.

    Attributes:
        network: the network.
        kept_indices: indices that were kept of each axis that was cut, by tensor and axis.
    """

    network: nn.Module
    kept_indices: Mapping[Key, Tensor]

    def cut(self, tensor: Tensor, name: str) -> Tensor:
        """Return a tensor with the axes of the weight of this name, cut like it."""
        for (other, axis), indices in self.kept_indices.items():
            if other == name:
                tensor = tensor.index_select(axis, indices.to(tensor.device))
        return tensor


def without_units(network: nn.Module, groups: Sequence[Group], used: Sequence[Flags]) -> CutNetwork:
    """Return a copy of a network with the used units of its groups alone."""
    state, is_kept = state_of(network), dict[Key, Flags]()
    for group, flags in zip(groups, used, strict=True):
        for key, indices in group.axes.items():
            kept = is_kept.setdefault(key, np.ones(state[key[0]].shape[key[1]], bool))
            kept[indices[~flags].ravel()] = False
    cut = CutNetwork(
        network,
        {key: torch.from_numpy(np.flatnonzero(kept)) for key, kept in is_kept.items() if not kept.all()},
    )
    smaller = {name: cut.cut(state[name], name) for name, _ in cut.kept_indices}
    return replace(cut, network=_with_tensors(network, smaller))


def _with_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a network with other tensors under some names, and layers of their sizes."""
    state, others = state_of(network), other_names(network)
    for name, tensor in tensors.items():
        state |= dict.fromkeys((name, *others.get(name, ())), tensor)
    return own_class(network, state, Selection(()), frozenset()).train(network.training)


def cut_shapes(network: nn.Module, full: nn.Module) -> tuple[TensorShape, ...]:
    """Return the shapes of the tensors of a network that are smaller than in the full one, by their names."""
    shapes = {name: tensor.shape for name, tensor in state_of(full).items()}
    own = sorted((name, tuple(tensor.shape)) for name, tensor in state_of(network).items())
    return tuple(TensorShape(name, shape) for name, shape in own if shape != shapes[name])


def with_shapes(network: nn.Module, shapes: Sequence[TensorShape]) -> nn.Module:
    """Return a network of which some tensors have other shapes, and undefined values.

    Raises:
        UserError: for unknown names, or shapes that are not smaller ones of these tensors.
    """
    if not shapes:
        return network
    state, smaller = state_of(network), dict[str, Tensor]()
    for own in shapes:
        if own.name not in state:
            raise UserError(f"The network has no tensor {own.name!r}, which was made smaller.")
        full = tuple(state[own.name].shape)
        if len(own.shape) != len(full) or not all(
            1 <= size <= most for size, most in zip(own.shape, full, strict=True)
        ):
            raise UserError(f"{own.name} has shape {full}; it cannot become {own.shape}.")
        smaller[own.name] = state[own.name].new_empty(own.shape)
    return _with_tensors(network, smaller)
