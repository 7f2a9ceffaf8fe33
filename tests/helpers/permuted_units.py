"""Units of a network in a new order, without the code that makes sub-networks: the function stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ofa.graph.capture import capture
from ofa.graph.groups import Grouping, find_groups
from ofa.graph.labels.analysis import label_graph
from ofa.graph.structure import Group

# Relative; float64 has 1e-16.
TOLERANCE = 1e-9


def grouping_of(network: nn.Module, args: tuple[Any, ...]) -> Grouping:
    captured = capture(network, args, {})
    return find_groups(label_graph(captured.program.graph, captured.parameters))


@torch.no_grad()
def randomise_all(network: nn.Module) -> None:
    """Give every parameter and buffer values that no two units share."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.dim() < 2:
            tensor.copy_(0.5 + 0.5 * noise)
        else:
            tensor.copy_(noise / max(tensor[0].numel(), 1) ** 0.5)


def permuted_state(network: nn.Module, groups: Sequence[Group], seed: int) -> dict[str, Tensor]:
    """Return the tensors of a network with the units of some groups in a new order."""
    rng = np.random.default_rng(seed)
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for group in groups:
        order = rng.permutation(group.num_units)
        for (name, axis), indices in group.axes.items():
            source = np.arange(state[name].shape[axis])
            source[indices.ravel()] = indices[order].ravel()
            state[name] = state[name].detach().index_select(axis, torch.from_numpy(source))
    return state


@torch.no_grad()
def outputs_of(
    network: nn.Module, args: tuple[Any, ...], state: dict[str, Tensor] | None = None
) -> list[Tensor]:
    output = network(*args) if state is None else functional_call(network, state, args)
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the largest difference of two lists of tensors, relative to the largest value of each."""
    pairs = zip(first, second, strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
