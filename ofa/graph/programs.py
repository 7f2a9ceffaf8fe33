"""`GraphProgram`: operators of a sub-network as a plain value that becomes a module with random weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from ofa.graph.graph_values import argument_of, argument_value, function_named, target_name

_SHOWN_OPERATORS = 6


@dataclass(frozen=True)
class ProgramInput:
    """A tensor that a program reads.

    Attributes:
        shape: its shape, with the batch.
        dtype: name of its type, e.g. "float32".
        is_network_input: whether it is the input of the network, rather than a result of other operators.
    """

    shape: tuple[int, ...]
    dtype: str
    is_network_input: bool


@dataclass(frozen=True)
class ProgramOutput:
    """A tensor that a program computes for others.

    Attributes:
        shape: its shape, with the batch.
        is_network_output: whether the network returns it.
    """

    shape: tuple[int, ...]
    is_network_output: bool


@dataclass(frozen=True)
class GraphProgram:
    """Some operators of a sub-network: all that their speed depends on, and no weights.

    Two programs are equal exactly when they run the same operators on the same shapes in the same way.

    Attributes:
        inputs: the tensors that it reads.
        outputs: the tensors that it returns.
        operators: JSON of the operators and weights; items are numbered from the inputs on.
    """

    inputs: tuple[ProgramInput, ...]
    outputs: tuple[ProgramOutput, ...]
    operators: str

    @cached_property
    def key(self) -> str:
        """Readable text that is equal exactly for equal programs: operators, shapes, and a short hash."""
        names = [item["target"].split(".")[1] for item in self._items if item.get("target", "").count(".")]
        shown = names[:_SHOWN_OPERATORS] + ["…"] * (len(names) > _SHOWN_OPERATORS)
        ends = (shape_text(entry[0].shape) for entry in (self.inputs, self.outputs) if entry)
        text = json.dumps([self.operators, repr(self.inputs), repr(self.outputs)])
        return f"{'+'.join(shown)} {'>'.join(ends)} {hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def _items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.operators)["items"]
        return items

    def module(self) -> fx.GraphModule:
        """Return a module of the program with random weights; it takes and returns tensors in order."""
        graph, root = fx.Graph(), nn.Module()
        nodes = [graph.placeholder(f"input_{index}") for index in range(len(self.inputs))]
        for item in self._items:
            if "shape" in item:
                name = f"weight_{len(nodes)}"
                root.register_buffer(name, random_weight(item["shape"], item["dtype"]))
                nodes.append(graph.get_attr(name))
            else:
                args = tuple(argument_of(value, nodes) for value in item["args"])
                kwargs = {key: argument_of(value, nodes) for key, value in item["kwargs"].items()}
                nodes.append(graph.call_function(function_named(item["target"]), args, kwargs))
        results = [nodes[index] for index in json.loads(self.operators)["results"]]
        graph.output(results[0] if len(results) == 1 else tuple(results))
        return fx.GraphModule(root, graph).eval()


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as text, e.g. "1x16x32x32"."""
    return "x".join(map(str, shape))


def random_weight(shape: Sequence[int], dtype: str) -> Tensor:
    """Return a random tensor that keeps activations of moderate size; zeros for whole numbers.

    Vectors are positive, as variances have to be.
    """
    kind = getattr(torch, dtype)
    if not kind.is_floating_point:
        return torch.zeros(*shape, dtype=kind)
    if len(shape) < 2:
        return torch.rand(*shape, dtype=kind) + 0.5
    return torch.randn(*shape, dtype=kind) / math.sqrt(max(1, math.prod(shape[1:])))


def program_of(
    nodes: Sequence[fx.Node],
    values: Mapping[fx.Node, Any],
    results: Sequence[fx.Node],
    network_ends: tuple[fx.Node, Sequence[fx.Node]],
) -> GraphProgram:
    """Return operators of a graph as a program.

    Args:
        nodes: the operators, in order.
        values: what each node of the graph is in the sub-network: a tensor without data, or a number.
        results: those of the operators whose tensors others use.
        network_ends: the node of the network's input, and those of its outputs.

    Raises:
        UserError: if the graph calls what is no operator of PyTorch.
    """
    network_input, network_outputs = network_ends
    inside = set(nodes)
    sources = dict.fromkeys(s for node in nodes for s in node.all_input_nodes if s not in inside)
    tensors = [source for source in sources if isinstance(values[source], Tensor)]
    inputs = [s for s in tensors if s is network_input or s.op == "call_function"]
    index = {node: number for number, node in enumerate(inputs)}
    items: list[dict[str, Any]] = []
    for weight in (source for source in tensors if source not in index):
        index[weight] = len(inputs) + len(items)
        items.append({"shape": list(values[weight].shape), "dtype": _dtype(values[weight])})
    for node in nodes:
        args, kwargs = fx.node.map_arg(
            (node.args, dict(node.kwargs)), lambda n: n if n in index else values[n]
        )
        index[node] = len(inputs) + len(items)
        items.append(
            {
                "target": target_name(node),
                "args": [argument_value(item, index) for item in args],
                "kwargs": {key: argument_value(item, index) for key, item in kwargs.items()},
            }
        )
    return GraphProgram(
        tuple(ProgramInput(tuple(values[s].shape), _dtype(values[s]), s is network_input) for s in inputs),
        tuple(ProgramOutput(tuple(values[node].shape), node in network_outputs) for node in results),
        json.dumps({"items": items, "results": [index[node] for node in results]}),
    )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
