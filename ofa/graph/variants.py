"""`bound_parts`: which parts a network's own forward cannot vary, found by comparison with its graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ofa.graph.checks import FunctionChecks, failing
from ofa.graph.elastic_modules import make_sizes_follow, skipping
from ofa.graph.execution import GraphFunction
from ofa.graph.parts import ElasticParts
from ofa.graph.rewrite import rewrite
from ofa.graph.selection import Selection
from ofa.graph.slicing import TensorSlices
from ofa.graph.state import other_names, state_of

_SEEDS = (None, 0)
"""Sub-networks that are compared: half of everything, and a random one."""
_MAX_HALVINGS = 3
# Of networks whose forward takes longer, such groups are not halved.
_MAX_FORWARD_S = 1.0


class Variants:
    """Computes sub-networks of a randomised copy of a network by its own forward and by its graph."""

    def __init__(self, parts: ElasticParts, checks: FunctionChecks) -> None:
        """Prepare both functions."""
        kernels = {kernel.weight: kernel.side for kernel in parts.kernels}
        rewritten = rewrite(parts.capture, parts.grouping, kernels, parts.blocks)
        rewritten = replace(rewritten, constants=tuple(map(checks.converted, rewritten.constants)))
        self._parts, self._checks = parts, checks
        self._function = GraphFunction(rewritten)
        self.sized_groups = rewritten.sized_groups
        self._network = copy.deepcopy(checks.network)
        make_sizes_follow(self._network, kernels, frozenset(block.name for block in parts.blocks))
        shapes = {name: tuple(tensor.shape) for name, tensor in state_of(self._network).items()}
        self._slices = TensorSlices(parts.groups, shapes, other_names(self._network))

    def selection(self, names: Sequence[str], seed: int | None) -> Selection:
        """Return the sub-network in which the parts of these names are smaller: by half, or at random."""
        rng, chosen = np.random.default_rng(seed), set(names)
        parts = self._parts
        keys = iter(parts.names)

        def draw(smallest: int, largest: int) -> int:
            return max(smallest, largest // 2) if seed is None else int(rng.integers(smallest, largest + 1))

        counts = tuple(draw(1, g.num_units) if next(keys) in chosen else g.num_units for g in parts.groups)
        kernels = {
            kernel.weight: 3 if seed is None else 3 + 2 * draw(0, (kernel.side - 3) // 2)
            for kernel in parts.kernels
            if next(keys) in chosen
        }
        skipped: list[str] = []
        for chain in parts.named_chains:
            if next(keys) in chosen:
                skipped += chain.blocks[draw(0, len(chain.blocks)) if seed is not None else 0 :]
        return Selection(counts, kernels, frozenset(skipped))

    @torch.no_grad()
    def by_graph(self, selection: Selection) -> Any:
        """Return the outputs that the graph computes."""
        state = state_of(self._network)
        tensors = state | self._slices.tensors(state, selection)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self._function(tensors, self._checks.args, self._checks.kwargs, selection, training=False)

    @torch.no_grad()
    def by_own_forward(self, selection: Selection) -> Any:
        """Return the outputs that the network's own forward computes."""
        tensors = self._slices.tensors(state_of(self._network), selection)
        with skipping(selection.skipped), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return torch.func.functional_call(
                self._network, tensors, self._checks.args, self._checks.kwargs, tie_weights=False
            )

    def _compared(self, names: Sequence[str]) -> Iterator[Selection]:
        """Yield sub-networks: half of all, a random one, and some in which groups are half or whole.

        Of any two groups whose units the forward may count in its sizes, the latter halve one alone.
        """
        yield from (self.selection(names, seed) for seed in _SEEDS)
        sized = [self._parts.groups[index].name for index in sorted(self.sized_groups)]
        sized = [name for name in sized if name in set(names)]
        for bit in range(len(sized).bit_length()):
            yield self.selection([name for index, name in enumerate(sized, 1) if index >> bit & 1], None)

    def graph_is_right(self) -> bool:
        """Return whether the graph computes what the network does."""
        try:
            return self._checks.agree(self.by_graph(self.selection((), None)), self._checks.outputs)
        except Exception:  # Whatever operators raise.
            return False

    def graph_runs(self, names: Sequence[str]) -> bool:
        """Return whether the graph computes these parts at smaller sizes."""
        try:
            for seed in _SEEDS:
                self.by_graph(self.selection(names, seed))
        except Exception:  # Whatever operators raise.
            return False
        return True

    def forward_trains(self, names: Sequence[str]) -> bool:
        """Return whether the own forward runs in training mode, or the full network does not either."""
        network = copy.deepcopy(self._network).train()

        def runs(selection: Selection) -> bool:
            tensors = self._slices.tensors(state_of(network), selection)
            try:
                with skipping(selection.skipped), torch.random.fork_rng(devices=[]), torch.no_grad():
                    torch.func.functional_call(
                        network, tensors, self._checks.args, self._checks.kwargs, tie_weights=False
                    )
            except Exception:
                return False
            return True

        return runs(self.selection(names, None)) or not runs(self.selection((), None))

    def forward_agrees(self, names: Sequence[str]) -> bool:
        """Return whether the own forward computes what the graph does, for smaller sizes of these parts."""
        try:
            return all(
                self._checks.agree(self.by_own_forward(selection), self.by_graph(selection))
                for selection in self._compared(names)
            )
        except Exception:
            return False


def bound_parts(parts: ElasticParts, checks: FunctionChecks) -> tuple[ElasticParts, list[str]]:
    """Return the parts that can be computed, and the names of those that only the graph can.

    Args:
        parts: the parts that may vary.
        checks: a randomised copy of the network with its outputs.
    """
    variants = Variants(parts, checks)
    if not variants.graph_is_right():
        return parts.without(parts.names, "its graph does not compute what the network does"), []
    rigid = failing(parts.names, variants.graph_runs)
    if rigid:
        parts = parts.without(rigid, "neither the network nor its graph runs with fewer of its channels")
        variants = Variants(parts, checks)
    placeholders = [node for node in parts.capture.program.graph.nodes if node.op == "placeholder"]
    used = {parts.capture.parameters.get(node.name) for node in placeholders if node.users}
    if not set(dict(checks.network.named_parameters())) <= used:
        # Such as auxiliary heads, which read channels in training mode alone.
        strict = failing(parts.names, variants.forward_trains)
        if strict:
            parts = parts.without(strict, "is read by modules that run in training mode alone")
            variants = Variants(parts, checks)
    if variants.forward_agrees(parts.names):
        return parts, []
    # Sizes that are written into the forward are the usual cause; which of these groups are bound only
    # decides whether some sub-networks keep their class.
    sized = [parts.groups[index].name for index in sorted(variants.sized_groups)]
    others = [name for name in parts.names if name not in set(sized)]
    max_halvings = _MAX_HALVINGS if checks.forward_s < _MAX_FORWARD_S else 0
    bound = failing(others, variants.forward_agrees, max_halvings)
    bound += failing(sized, variants.forward_agrees, max_halvings)
    rest = [name for name in parts.names if name not in set(bound)]
    return parts, bound if variants.forward_agrees(rest) else parts.names
