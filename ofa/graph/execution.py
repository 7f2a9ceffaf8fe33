"""`GraphFunction`: runs a rewritten graph with the tensors and sizes of a sub-network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ofa.common.errors import UserError
from ofa.graph.capture import tensors_in
from ofa.graph.forms import Form
from ofa.graph.rewrite import Quantity, RewrittenGraph
from ofa.graph.selection import Selection

# Compiled code is kept for so many sets of blocks that are left out.
_MAX_VARIANTS = 256


class GraphFunction:
    """The function of a rewritten graph; code is compiled once for each set of blocks that are left out."""

    def __init__(self, rewritten: RewrittenGraph) -> None:
        """Compile nothing yet."""
        self.rewritten = rewritten
        self._variants: dict[tuple[frozenset[str], torch.device], Callable[..., Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphFunction:
        """Return a function of the same graph, which never changes."""
        return GraphFunction(self.rewritten)

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        selection: Selection,
        *,
        training: bool,
    ) -> Any:
        """Return the outputs of a sub-network.

        Args:
            tensors: its parameters and buffers by name.
            args: positional inputs.
            kwargs: keyword inputs.
            selection: the sub-network, by what it keeps.
            training: whether dropout and batch norm are in training mode.

        Raises:
            UserError: if the inputs are not structured as the example was.
        """
        rewritten = self.rewritten
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        if spec != rewritten.in_spec:
            raise UserError("The inputs are structured differently from the example of the conversion.")
        sizes = [size_of(quantity, selection) for quantity in rewritten.quantities]
        used = [tensors[name] for name in rewritten.tensors]
        device = next((tensor.device for tensor in (*used, *tensors_in(leaves))), torch.device("cpu"))
        constants = (constant.to(device) for constant in rewritten.constants)
        function = self._variant(selection.skipped, device)
        outputs = function(*used, *constants, *leaves, sizes, training)
        return pytree.tree_unflatten(list(outputs), rewritten.out_spec)

    def _variant(self, skipped: frozenset[str], device: torch.device) -> Callable[..., Any]:
        if (skipped, device) not in self._variants:
            if len(self._variants) >= _MAX_VARIANTS:
                self._variants.pop(next(iter(self._variants)))
            graph = without_blocks(self.rewritten, skipped)
            for node in graph.nodes:  # Tensors that the graph creates.
                if isinstance(node.kwargs.get("device"), torch.device):
                    node.kwargs = {**node.kwargs, "device": device}
            root = nn.Module()
            for name, module in self.rewritten.modules.items():
                root.add_module(name, module)
            self._variants[skipped, device] = fx.GraphModule(root, graph).forward
        return self._variants[skipped, device]


def size_of(quantity: Quantity, selection: Selection) -> int:
    """Return a size of the graph in a sub-network."""
    return quantity.size(selection.counts) if isinstance(quantity, Form) else quantity.size(selection.kernels)


def without_blocks(rewritten: RewrittenGraph, skipped: Iterable[str]) -> fx.Graph:
    """Return a copy of the graph in which some blocks are left out: their input is their output."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    blocks = [rewritten.blocks[name] for name in skipped]
    left_out = {node for block in blocks for node in block.nodes}
    inputs_of = {block.result: block.source for block in blocks}

    def copied(node: fx.Node) -> fx.Node:
        while node in inputs_of:
            node = inputs_of[node]
        return copies[node]

    for node in rewritten.graph.nodes:
        if node not in left_out:
            copies[node] = graph.node_copy(node, copied)
    for node in reversed(list(graph.nodes)):
        is_size = node.op == "call_function" and "getitem" in str(node.target)
        if is_size and not node.users:
            graph.erase_node(node)
    return graph
