"""`label_graph`: the labels of all tensors of a captured graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from ofa.graph.labels import attention, elementwise, joining, layers, reshaping
from ofa.graph.labels.call import RULES, Call, UnsupportedError, operator_name, place_of, tensor_sizes
from ofa.graph.labels.store import Axes, Components, LabelStore

# Operators that run a graph under other settings.
_WRAPPERS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
_RULE_MODULES = (attention, elementwise, joining, layers, reshaping)


@dataclass(frozen=True)
class LabelledGraph:
    """A captured graph with the labels of its tensors.

    Attributes:
        graph: the graph; parameters, buffers and inputs are placeholders.
        labels: axes of the tensor of each node, or of each of its tensors.
        parameters: axes of each parameter and buffer by its name.
        components: labels that belong together, and why some stay.
        unknown_operators: operators without a rule, each with the first place where it is used.
    """

    graph: Graph
    labels: Mapping[Node, Any]
    parameters: Mapping[str, Axes]
    components: Components
    unknown_operators: Mapping[str, str]

    def reason(self, name: str, axis: int) -> str:
        """Return why the first index that stays of an axis of a parameter does so; empty if none has to."""
        labels = self.parameters[name][axis]
        if labels is None:
            return "has one index or holds no channels"
        reasons = self.components.reason_of[self.components.of_label[labels]]
        return self.components.reasons[reasons[reasons >= 0][0]] if (reasons >= 0).any() else ""


def label_graph(graph: Graph, parameters: Mapping[str, str]) -> LabelledGraph:
    """Return the labels of a captured graph.

    Args:
        graph: graph of aten operators with traced values in `meta["val"]`.
        parameters: name of the parameter or buffer of each placeholder that is one.
    """
    store = LabelStore()
    labels: dict[Node, Any] = {}
    axes_of: dict[str, Axes] = {}
    unknown: dict[str, str] = {}
    used = {parameters[node.name] for node in graph.nodes if node.users and node.name in parameters}
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in parameters:
            value = node.meta.get("val")
            name = parameters[node.name]
            if name not in axes_of:
                axes_of[name] = _new_axes(value, store)
            labels[node] = axes_of[name]
            if name not in used:
                _pin_all(labels[node], store, "is not used in eval mode")
        elif node.op == "output":
            for source in node.all_input_nodes:
                _pin_all(labels[source], store, "is an output of the model")
        else:
            _label_node(node, labels, store, unknown)
    return LabelledGraph(graph, labels, axes_of, store.components(), unknown)


def _new_axes(value: Tensor, store: LabelStore) -> Axes:
    """Return new labels for a parameter or buffer; one of integers holds positions, not channels."""
    has_channels = value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool
    return [store.fresh(size) if size > 1 and has_channels else None for size in tensor_sizes(value)]


def unlabelled(value: Any) -> Any:
    """Return axes without labels for a traced value: a tensor, or several."""
    if isinstance(value, Tensor):
        return [None] * value.dim()
    if isinstance(value, (list, tuple)):
        return [unlabelled(item) for item in value]
    return []


def _label_node(node: Node, labels: dict[Node, Any], store: LabelStore, unknown: dict[str, str]) -> None:
    """Label a node that is neither a parameter nor the output."""
    inner = _inner_graph(node)
    if inner is not None:
        _label_inner(node, *inner, labels, store, unknown)
    elif node.op == "call_function":
        labels[node] = _call(node, labels, store, unknown)
    else:
        labels[node] = unlabelled(node.meta.get("val"))


def _inner_graph(node: Node) -> tuple[Graph, tuple[Any, ...]] | None:
    """Return the graph that a node runs under other settings, with its operands; None if it runs none."""
    if node.op != "call_function" or operator_name(node) not in _WRAPPERS:
        return None
    for index, item in enumerate(node.args):
        if isinstance(item, Node) and item.op == "get_attr":
            inner = getattr(node.graph.owning_module, str(item.target), None)
            return (inner.graph, node.args[index + 1 :]) if isinstance(inner, GraphModule) else None
    return None


def _label_inner(
    node: Node,
    graph: Graph,
    operands: tuple[Any, ...],
    labels: dict[Node, Any],
    store: LabelStore,
    unknown: dict[str, str],
) -> None:
    """Label the nodes of a graph that `node` runs, and `node` as its outputs."""
    rest = iter(operands)
    for item in graph.nodes:
        if item.op == "placeholder":
            operand = next(rest)
            labels[item] = labels[operand] if isinstance(operand, Node) else []
        elif item.op == "output":
            outputs = item.args[0] if isinstance(item.args[0], (list, tuple)) else [item.args[0]]
            labels[node] = [labels[output] if isinstance(output, Node) else [] for output in outputs]
        else:
            _label_node(item, labels, store, unknown)


def _call(node: Node, labels: Mapping[Node, Any], store: LabelStore, unknown: dict[str, str]) -> Any:
    """Return the labels of an operator's output; whatever its rule cannot say pins all that it touches."""
    name, value = operator_name(node), node.meta.get("val")
    if not isinstance(value, (Tensor, list, tuple)):  # a size, or nothing
        return []
    function = RULES.get(name)
    num_ties, num_pins = len(store.ties), len(store.pins)
    why = f"meets operator {name}, which has no rule{place_of(node)}"
    if function is not None:
        read = _ReadLabels(labels)
        try:
            result = function(Call(node, read, store))
            if _fits(result, value):
                _pin_unread(node, read, store)
                return result
            why = f"meets operator {name} in a shape that its rule does not cover{place_of(node)}"
        except UnsupportedError as error:
            why = f"meets operator {name}, which {error}{place_of(node)}"
        except Exception as error:  # A rule that fails must cost channels, not the user's conversion.
            why = f"meets operator {name}, whose rule fails with {type(error).__name__}{place_of(node)}"
    elif any(_has_labels(labels[source]) for source in node.all_input_nodes):
        unknown.setdefault(name, place_of(node).strip(" ()"))
    del store.ties[num_ties:], store.pins[num_pins:]
    for source in node.all_input_nodes:
        _pin_all(labels[source], store, why)
    return unlabelled(value)


@dataclass(frozen=True)
class _ReadLabels(Mapping[Node, Any]):
    """Labels of nodes, with the nodes that were asked for."""

    labels: Mapping[Node, Any]
    nodes: set[Node] = field(default_factory=set)

    def __getitem__(self, node: Node) -> Any:
        self.nodes.add(node)
        return self.labels[node]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)


def _pin_unread(node: Node, read: _ReadLabels, store: LabelStore) -> None:
    """Let the operands of `node` stay that its rule has not looked at."""
    for source in node.all_input_nodes:
        if source not in read.nodes:
            why = f"is an operand that the rule of {operator_name(node)} does not know{place_of(node)}"
            _pin_all(read.labels[source], store, why)


def _fits(result: Any, value: Any) -> bool:
    """Return whether labels have the sizes of the traced value."""
    if isinstance(value, Tensor):
        sizes = tensor_sizes(value)
        return len(result) == len(sizes) and all(
            axis is None or len(axis) == size for axis, size in zip(result, sizes, strict=True)
        )
    return len(result) == len(value) and all(map(_fits, result, value))


def _pin_all(axes: Any, store: LabelStore, reason: str) -> None:
    for axis in axes:
        if isinstance(axis, list):
            _pin_all(axis, store, reason)
        else:
            store.pin(axis, reason)


def _has_labels(axes: Any) -> bool:
    return any(_has_labels(axis) if isinstance(axis, list) else axis is not None for axis in axes)
