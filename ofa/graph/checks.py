"""Checks of a conversion: changing the order of units must not change what the network computes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ofa.graph.capture import tensors_in
from ofa.graph.slicing import reordered
from ofa.graph.state import state_of
from ofa.graph.structure import Group

# Largest difference between outputs, relative to the largest output: only the order of sums may differ.
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}


def random_copy(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy in eval mode in which no two entries of a parameter or statistic are equal.

    Units whose parameters are equal, as those of new batch norms, could not be told apart; blocks whose
    outputs are scaled by zero would hide all that they compute.
    """
    network = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in {id(tensor): tensor for tensor in state_of(network).values()}.values():
            if tensor.is_floating_point() and tensor.numel():
                tensor.copy_(_random_like(tensor, generator))
    return network


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
    values = tensor.double()
    if tensor.numel() == 1 or values.std() > 1e-3 * values.abs().max():
        return values * (0.7 + 0.6 * uniform)
    return 0.1 * (uniform - 0.5) if values.abs().max() == 0 else 0.5 + uniform


class UnsupportedTypeError(Exception):
    """A network that is not computed in float64."""


class FunctionChecks:
    """Compares outputs of a randomised copy of a user's network in float64, or in its own type.

    Attributes:
        network: the randomised copy.
        args: positional arguments.
        kwargs: keyword arguments.
        outputs: its outputs.
        tolerance: largest difference that counts as equal, relative to the largest output.
        forward_s: processor seconds of a forward pass.
    """

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, in_double: bool = True
    ) -> None:
        """Copy the network and compute its outputs for the example.

        Args:
            model: the user's network.
            args: positional arguments of the example.
            kwargs: keyword arguments of the example.
            in_double: whether to compute in float64 where the network's forward allows it.
        """
        single = random_copy(model)
        try:
            if not in_double:
                raise UnsupportedTypeError
            self.network, inputs = copy.deepcopy(single).double(), _to_double((args, dict(kwargs)))
            self.args, self.kwargs = inputs
            start_s = time.process_time()
            self.outputs = self.own_forward({})
            self.tolerance = _TOLERANCES[torch.float64]
        except Exception:  # Whatever a forward raises that expects its own type.
            self.network, self.args, self.kwargs = single, args, dict(kwargs)
            start_s = time.process_time()
            self.outputs = self.own_forward({})
            self.tolerance = _TOLERANCES[torch.float32]
        self.forward_s = time.process_time() - start_s

    @torch.no_grad()
    def own_forward(self, tensors: Mapping[str, Tensor]) -> Any:
        """Return the outputs of the network's own forward with some tensors replaced."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Some networks keep what they computed from their parameters in eval mode.
            memo = {id(tensor): tensor for tensor in state_of(self.network).values()}
            network = copy.deepcopy(self.network, memo)
            return torch.func.functional_call(network, dict(tensors), self.args, self.kwargs)

    def converted(self, tensor: Tensor) -> Tensor:
        """Return a tensor in the precision of the checks."""
        is_double = self.tolerance == _TOLERANCES[torch.float64]
        return tensor.double() if is_double and tensor.is_floating_point() else tensor

    def agree(self, first: Any, second: Any) -> bool:
        """Return whether two outputs are equal but for the order of sums."""
        pairs = list(zip(tensors_in(first), tensors_in(second), strict=False))
        if len(pairs) != len(tensors_in(first)) or len(pairs) != len(tensors_in(second)):
            return False
        return all(_close(a, b, self.tolerance) for a, b in pairs)

    def wrong_groups(self, groups: Sequence[Group]) -> list[str]:
        """Return the names of groups the order of whose units is part of the function."""
        state = state_of(self.network)

        def is_right(part: Sequence[Group]) -> bool:
            rng = np.random.default_rng(0)
            orders = [rng.permutation(group.num_units) for group in part]
            try:
                return self.agree(self.own_forward(reordered(state, part, orders)), self.outputs)
            except Exception:
                return False

        return [group.name for group in failing(groups, is_right)]


def failing(
    items: Sequence[Any], is_right: Callable[[Sequence[Any]], bool], max_halvings: int = 64
) -> list[Any]:
    """Return the items without which all others together are right, by bisection.

    Args:
        items: what is checked.
        is_right: whether some of the items are right together.
        max_halvings: how often wrong items are halved before all of them count as wrong.
    """
    if not items or is_right(items):
        return []
    if len(items) == 1 or max_halvings == 0:
        return list(items)
    half = len(items) // 2
    wrong = failing(items[:half], is_right, max_halvings - 1)
    wrong += failing(items[half:], is_right, max_halvings - 1)
    rest = [item for item in items if item not in wrong]
    return wrong if is_right(rest) or not rest else list(items)


def _to_double(inputs: Any) -> Any:
    def double(leaf: Any) -> Any:
        is_float = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.double() if is_float else leaf

    return pytree.tree_map(double, inputs)


def _close(first: Tensor, second: Tensor, tolerance: float) -> bool:
    if first.shape != second.shape:
        return False
    if not first.is_floating_point():
        return bool(torch.equal(first, second))
    if not (first.isfinite().all() and second.isfinite().all()):
        return False
    scale = first.abs().max() if first.numel() else 1.0
    return bool(((first - second).abs() <= tolerance * scale).all())
