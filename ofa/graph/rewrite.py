"""`rewrite`: the captured graph with each size that a sub-network changes as an input."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

from ofa.graph.blocks import Block
from ofa.graph.capture import Capture, tensors_in
from ofa.graph.forms import Form
from ofa.graph.groups import Grouping, operator_calls
from ofa.graph.labels.call import Call, axis_index, operator_name
from ofa.graph.labels.store import Axis

_VIEWS = {"view": "size", "_unsafe_view": "size", "reshape": "shape", "expand": "size"}
_SPLITS = ("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes")
_SIZED = {*_VIEWS, *_SPLITS, "unflatten", "slice", "narrow"}
_RESHAPING = {*_VIEWS, "unflatten", "repeat", "tile", "broadcast_to"}
_CREATING = {"zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "arange"}
_ASSERTIONS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size")
# The argument that says whether the network is in training mode.
_TRAINING = {
    "dropout": "train",
    "feature_dropout": "train",
    "alpha_dropout": "train",
    "feature_alpha_dropout": "train",
    "batch_norm": "training",
}


@dataclass(frozen=True)
class KernelPadding:
    """Padding of a convolution whose kernel is elastic: it falls with the kernel.

    Attributes:
        weight: name of the weight.
        full_kernel: side of the full kernel.
        full_padding: padding of the full kernel.
    """

    weight: str
    full_kernel: int
    full_padding: int

    def size(self, kernel_sizes: Mapping[str, int]) -> int:
        """Return the padding with these kernel sizes, by weight; the full one where there is none."""
        return self.full_padding - (self.full_kernel - kernel_sizes.get(self.weight, self.full_kernel)) // 2


@dataclass(frozen=True)
class IsTraining:
    """Stands for the flag that says whether the network is in training mode."""


Quantity = Form | KernelPadding


@dataclass(frozen=True)
class RewrittenGraph:
    """A graph whose inputs are its tensors, the user's inputs, its sizes and whether it is in training mode.

    Attributes:
        graph: the graph; its placeholders are the tensors, the inputs, "sizes" and "training".
        tensors: names of the parameters and buffers, in order.
        constants: tensors that the user's code holds elsewhere, in order after the others.
        quantities: what the sizes are.
        blocks: blocks that may be left out, by name.
        modules: graphs that operators of the graph run, by name.
        in_spec: structure of the user's arguments.
        out_spec: structure of the outputs.
        has_free_batch: whether the graph runs with any batch size.
        sized_groups: indices of the groups whose units are counted in sizes of views, splits and slices.
        input_shapes: shapes of the tensors of the example, in order.
    """

    graph: fx.Graph
    tensors: tuple[str, ...]
    constants: tuple[Tensor, ...]
    quantities: tuple[Quantity, ...]
    blocks: Mapping[str, Block]
    modules: Mapping[str, torch.nn.Module]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    has_free_batch: bool
    sized_groups: frozenset[int] = frozenset()
    input_shapes: tuple[tuple[int, ...], ...] = ()


def rewrite(
    capture: Capture, grouping: Grouping, kernels: Mapping[str, int], blocks: Sequence[Block]
) -> RewrittenGraph:
    """Return the captured graph with sizes, paddings and training flags as inputs.

    Args:
        capture: the captured graph.
        grouping: groups of its units.
        kernels: side of the full kernel of each weight whose kernel is elastic.
        blocks: blocks that may be left out.
    """
    source, program = capture.program.graph, capture.program
    calls = dict(operator_calls(grouping.labelled))
    sized_groups: set[int] = set()
    graph, copies, quantities = fx.Graph(), dict[Node, Node](), list[Quantity]()
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    placeholders = [node for node in source.nodes if node.op == "placeholder"]
    is_input = [not (n.name in capture.parameters or n.name in constants) for n in placeholders]
    tensors = [node for node in placeholders if node.name in capture.parameters]
    fixed = [node for node in placeholders if node.name in constants]
    inputs = [node for node, flag in zip(placeholders, is_input, strict=True) if flag]
    for node in (*tensors, *fixed, *inputs):
        copies[node] = graph.placeholder(node.name)
    flags = graph.placeholder("sizes"), graph.placeholder("training")
    for node in source.nodes:
        if node.op == "placeholder" or (operator_name(node) in _ASSERTIONS and not node.users):
            continue
        copy = copies[node] = graph.node_copy(node, copies.__getitem__)
        if node in calls:
            target, arguments = _new_arguments(calls[node], grouping, kernels, capture.parameters)
            if target is not None:
                if calls[node].name in _SIZED:
                    sized_groups |= _groups_in(list(arguments.values()))
                with graph.inserting_before(copy):
                    _replace(copy, target, arguments, copies, flags, quantities)
    _erase_unread_numbers(graph)
    copied_blocks = [
        Block(b.name, copies[b.source], copies[b.result], tuple(copies[n] for n in b.nodes if n in copies))
        for b in blocks
    ]
    return RewrittenGraph(
        graph=graph,
        tensors=tuple(capture.parameters[node.name] for node in tensors),
        constants=tuple(program.constants[constants[node.name]] for node in fixed),
        quantities=tuple(quantities),
        blocks={block.name: block for block in copied_blocks},
        modules=dict(program.graph_module.named_children()),
        in_spec=program.call_spec.in_spec,
        out_spec=program.call_spec.out_spec,
        has_free_batch=capture.has_free_batch,
        sized_groups=frozenset(sized_groups),
        input_shapes=tuple(tuple(t.shape) for t in tensors_in((capture.args, capture.kwargs))),
    )


def _erase_unread_numbers(graph: fx.Graph) -> None:
    """Erase, in place, comparisons of sizes that only assertions read."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not isinstance(node.target, OpOverload) and not node.users:
            graph.erase_node(node)


def has_batch_in_sizes(captured: Capture, batch: int) -> bool:
    """Return whether sizes in the graph may count the images of the example.

    Args:
        captured: a graph for the batch of the example.
        batch: number of images of the example.
    """
    return any(
        isinstance(size, int) and size > 0 and size % batch == 0  # Axes may have been exchanged or merged.
        for node in captured.program.graph.nodes
        if node.op == "call_function" and operator_name(node) in _RESHAPING | _CREATING
        for argument in (*node.args, *node.kwargs.values())
        for size in (argument if isinstance(argument, list | tuple) else [])
    )


def _replace(
    node: Node,
    target: Callable[..., Any],
    values: Mapping[str, Any],
    copies: Mapping[Node, Node],
    flags: tuple[Node, Node],
    quantities: list[Quantity],
) -> None:
    """Give a node a new target and some new arguments, in which quantities become inputs of the graph."""
    sizes, training = flags

    def as_input(value: Any) -> Any:
        if isinstance(value, IsTraining):
            return training
        if isinstance(value, Form) and not value.terms:
            return value.constant
        if isinstance(value, Form | KernelPadding):
            quantities.append(value)
            return node.graph.call_function(operator.getitem, (sizes, len(quantities) - 1))
        if isinstance(value, Node):
            return copies[value]
        return [as_input(item) for item in value] if isinstance(value, list) else value

    given: dict[str, Any] = {}
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given |= dict(zip(names, node.args, strict=False)) | node.kwargs
    kept = {a.name for a in target._schema.arguments}  # type: ignore[attr-defined]
    given = {name: value for name, value in given.items() if name in kept}
    given |= {name: as_input(value) for name, value in values.items()}
    node.target, node.args, node.kwargs = target, (), given
    first = next(iter(given))
    node.args = (given.pop(first),)  # Some passes of PyTorch expect the tensor in front.
    node.kwargs = given


def _new_arguments(
    call: Call, grouping: Grouping, kernels: Mapping[str, int], parameters: Mapping[str, str]
) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
    """Return the operator and the arguments that change with the sub-network; None if nothing changes."""
    name, target, values = call.name, call.node.target, dict[str, Any]()
    assert callable(target)
    if name in _VIEWS:
        values |= _view_sizes(call, grouping, _VIEWS[name], 0)
    elif name == "unflatten":
        start = axis_index(call.number("dim"), len(call.sizes()))
        values |= _view_sizes(call, grouping, "sizes", start)
    elif name in _SPLITS and call.axes()[axis_index(call.number("dim"), len(call.axes()))] is not None:
        target = torch.ops.aten.split_with_sizes.default
        dim = axis_index(call.number("dim"), len(call.axes()))
        parts = zip(call.labels[call.node], call.node.meta["val"], strict=True)
        values["split_sizes"] = [grouping.form(axes[dim], int(part.shape[dim])) for axes, part in parts]
        values["dim"] = dim
    elif name in ("slice", "narrow"):
        values |= _slice_ends(call, grouping)
    elif name.startswith("conv") and call.arguments["groups"] > 1:
        rows = call.labels[call.node][1]
        groups = call.arguments["groups"]
        values["groups"] = grouping.form(rows, call.out_sizes[1]).scaled(groups, call.out_sizes[1])
    elif name in ("layer_norm", "rms_norm"):
        shape = list(call.arguments["normalized_shape"])
        axes = call.labels[call.node][-len(shape) :]
        values["normalized_shape"] = [grouping.form(a, s) for a, s in zip(axes, shape, strict=True)]
    weight = parameters.get(call.input("weight").name, "") if name == "conv2d" else ""
    if weight in kernels:
        side = kernels[weight]
        values["padding"] = [KernelPadding(weight, side, side // 2) for _ in range(2)]
    values = {key: value for key, value in values.items() if value != call.arguments.get(key)}
    if name in _TRAINING and call.arguments[_TRAINING[name]] is False:
        values[_TRAINING[name]] = IsTraining()
    return (target, values) if values else (None, {})


def _groups_in(value: Any) -> set[int]:
    if isinstance(value, list):
        return {group for item in value for group in _groups_in(item)}
    return {group for group, _ in value.terms} if isinstance(value, Form) else set()


def _view_sizes(call: Call, grouping: Grouping, name: str, start: int) -> dict[str, Any]:
    """Return the sizes of a view from axis `start` on; one that counts channels of all images is inferred."""
    axes: list[Axis] = call.labels[call.node]
    result: list[Any] = []
    for index, size in enumerate(call.arguments[name]):
        form = grouping.form(axes[start + index], call.out_sizes[start + index])
        if not form.terms or size == -1:
            result.append(size)
        else:
            result.append(form if isinstance(size, int) else -1)
    return {name: result}


def _slice_ends(call: Call, grouping: Grouping) -> dict[str, Any]:
    """Return start and end, or length, of a slice as forms."""
    dim = axis_index(call.number("dim"), len(call.axes()))
    before, after = call.axes()[dim], call.labels[call.node][dim]
    start = call.arguments["start"] or 0
    if before is None or after is None or not isinstance(start, int):
        return {}
    start += len(before) if start < 0 else 0
    if call.name == "narrow":
        return {"start": grouping.form(before[:start], 0), "length": grouping.form(after, 0)}
    if start == 0 and len(after) == len(before):
        return {}
    ends = (grouping.form(before[:size], 0) for size in (start, start + len(after)))
    return dict(zip(("start", "end"), ends, strict=True))
