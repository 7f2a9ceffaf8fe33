"""A rewritten graph as plain JSON values and back; reading it traces nothing and runs nothing."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.graph.blocks import Block
from ofa.graph.forms import Form
from ofa.graph.rewrite import KernelPadding, Quantity, RewrittenGraph

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
}
_NAMED = (torch.dtype, torch.layout, torch.memory_format)
# Operators that only compute: any other could do more when a foreign file is read.
_NAMESPACE = "aten"
_MAX_AXES = 64


def graph_to_values(rewritten: RewrittenGraph) -> dict[str, Any]:
    """Return a rewritten graph as plain JSON values, without its constant tensors.

    Raises:
        UserError: if the graph runs other graphs, as under autocast within the forward.
    """
    if rewritten.modules:
        raise UserError(
            f"The graph of this network runs graphs of its own ({', '.join(rewritten.modules)}), which "
            "cannot be saved; exclude the modules that need the graph, so that the own forward runs."
        )
    index = {node: number for number, node in enumerate(rewritten.graph.nodes)}
    return {
        "nodes": [
            {
                "op": node.op,
                "name": node.name,
                "target": target_name(node),
                "args": [argument_value(item, index) for item in node.args],
                "kwargs": {key: argument_value(item, index) for key, item in node.kwargs.items()},
                "rank": num_axes(node),
            }
            for node in rewritten.graph.nodes
        ],
        "tensors": list(rewritten.tensors),
        "quantities": [asdict(quantity) for quantity in rewritten.quantities],
        "blocks": [
            {
                "name": block.name,
                "source": index[block.source],
                "result": index[block.result],
                "nodes": [index[node] for node in block.nodes],
            }
            for block in rewritten.blocks.values()
        ],
        "in_spec": pytree.treespec_dumps(rewritten.in_spec),
        "out_spec": pytree.treespec_dumps(rewritten.out_spec),
        "has_free_batch": rewritten.has_free_batch,
        "input_shapes": [list(shape) for shape in rewritten.input_shapes],
    }


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with their SHA-256 beside them, so that a change is noticed."""
    return {**values, "sha256": _digest(values)}


def check_digest(values: Mapping[str, Any]) -> None:
    """Raise the error for values that are not those that `with_digest` was given."""
    if values.get("sha256") != _digest({name: value for name, value in values.items() if name != "sha256"}):
        raise UserError(
            "The graph of the supernet was changed after it was written (SHA-256). Use an intact copy."
        )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def num_axes(node: fx.Node) -> int | None:
    """Return the number of axes of a node's value; None if it is no tensor, or not known."""
    value = node.meta.get("val")
    return len(value.shape) if isinstance(value, Tensor) else node.meta.get("rank")


def target_name(node: fx.Node) -> str:
    """Return the target of a node as text.

    Raises:
        UserError: for a function that is neither an operator of PyTorch nor arithmetic on numbers.
    """
    if node.op != "call_function":
        return str(node.target)
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    name = getattr(node.target, "__name__", "")
    if _FUNCTIONS.get(name) is not node.target:
        raise UserError(f"The graph of this network calls {node.target}, which cannot be saved.")
    return name


def argument_value(item: Any, index: Mapping[fx.Node, int]) -> Any:
    """Return an argument of a node as plain values; nodes are numbered by `index`.

    Raises:
        UserError: for an argument of another type.
    """
    if isinstance(item, fx.Node):
        return {"node": index[item]}
    if isinstance(item, (list, tuple)):
        return [argument_value(part, index) for part in item]
    if isinstance(item, _NAMED):
        return {"torch": str(item).removeprefix("torch.")}
    if isinstance(item, torch.device):
        return {"device": str(item)}
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise UserError(f"The graph of this network has an argument of type {type(item).__name__}.")


def graph_from_values(values: Mapping[str, Any], constants: Sequence[Tensor]) -> RewrittenGraph:
    """Return the graph that `graph_to_values` described.

    Args:
        values: plain values from a file, which may come from others.
        constants: its constant tensors.

    Raises:
        UserError: if the values do not describe a graph of operators that only compute.
    """
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    try:
        for entry in values["nodes"]:
            args = tuple(argument_of(item, nodes) for item in entry["args"])
            kwargs = {str(key): argument_of(item, nodes) for key, item in entry["kwargs"].items()}
            if entry["op"] == "placeholder":
                nodes.append(graph.placeholder(_identifier(entry["name"])))
            elif entry["op"] == "output":
                nodes.append(graph.output(*args))
            elif entry["op"] == "call_function":
                nodes.append(graph.call_function(function_named(entry["target"]), args, kwargs))
            else:
                raise UserError(f"has a node of kind {entry['op']!r}")
            nodes[-1].meta["rank"] = _rank(entry.get("rank"))
        blocks = [
            Block(b["name"], nodes[b["source"]], nodes[b["result"]], tuple(nodes[n] for n in b["nodes"]))
            for b in values["blocks"]
        ]
        return RewrittenGraph(
            graph=graph,
            tensors=tuple(map(str, values["tensors"])),
            constants=tuple(constants),
            quantities=tuple(_quantity(item) for item in values["quantities"]),
            blocks={block.name: block for block in blocks},
            modules={},
            in_spec=pytree.treespec_loads(values["in_spec"]),
            out_spec=pytree.treespec_loads(values["out_spec"]),
            has_free_batch=bool(values["has_free_batch"]),
            input_shapes=tuple(tuple(map(int, shape)) for shape in values.get("input_shapes", ())),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"The graph of the supernet cannot be read: {reason}") from error


def _rank(value: object) -> int | None:
    if value is not None and not (isinstance(value, int) and 0 <= value <= _MAX_AXES):
        raise UserError(f"The graph of the supernet has a tensor of {value!r} axes.")
    return value


def _identifier(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"The graph of the supernet has a placeholder of name {name!r}.")
    return name


def function_named(target: object) -> Callable[..., Any]:
    """Return the function of a target that `target_name` gave.

    Raises:
        UserError: for a target that could do more than compute.
    """
    if isinstance(target, str) and target in _FUNCTIONS:
        return _FUNCTIONS[target]
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) == 3 and parts[0] == _NAMESPACE and all(part.isidentifier() for part in parts):
        packet = getattr(torch.ops.aten, parts[1], None)
        function = getattr(packet, parts[2], None)
        if isinstance(function, torch._ops.OpOverload):
            return function
    raise UserError(f"The graph of the supernet calls {target!r}, which is no operator of PyTorch.")


def argument_of(item: Any, nodes: Sequence[fx.Node]) -> Any:
    """Return the argument that `argument_value` described, with nodes by their number.

    Raises:
        UserError: for a value that is no argument.
    """
    if isinstance(item, list):
        return [argument_of(part, nodes) for part in item]
    if isinstance(item, dict):
        if "node" in item:
            return nodes[int(item["node"])]
        if "device" in item:
            return torch.device(item["device"])
        value = getattr(torch, str(item["torch"]), None)
        if not isinstance(value, _NAMED):
            raise UserError(f"The graph of the supernet has the argument {item!r}.")
        return value
    return item


def _quantity(values: Mapping[str, Any]) -> Quantity:
    if "full_kernel" in values:
        return build(KernelPadding, values)
    return build(Form, values)
