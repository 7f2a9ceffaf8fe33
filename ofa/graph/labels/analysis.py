"""`label_graph`: the labels of all tensors of a captured graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Graph, Node

from ofa.graph.labels import attention, elementwise, joining, layers, reshaping
from ofa.graph.labels.call import RULES, Call, UnsupportedError, operator_name, place_of, tensor_sizes
from ofa.graph.labels.store import Axes, Components, LabelStore

_RULE_MODULES = (attention, elementwise, joining, layers, reshaping)


@dataclass(frozen=True)
class LabelledGraph:
    """A captured graph with the labels of its tensors.

    Attributes:
        graph: the graph; parameters, buffers and inputs are placeholders.
        labels: per node the axes of its tensor, or of each of its tensors.
        parameters: axes of each parameter and buffer by its name.
        components: which labels belong together, and why some stay.
        unknown_operators: operators without a rule, each with the first place where it is used.
    """

    graph: Graph
    labels: Mapping[Node, Any]
    parameters: Mapping[str, Axes]
    components: Components
    unknown_operators: Mapping[str, str]


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
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in parameters:
            sizes = tensor_sizes(value)
            axes: Axes = [store.fresh(size) if size > 1 else None for size in sizes]
            axes_of[parameters[node.name]] = labels[node] = axes
        elif node.op == "call_function":
            labels[node] = _call(node, labels, store, unknown)
        elif node.op == "output":
            for source in node.all_input_nodes:
                _pin_all(labels[source], store, "is an output of the model")
        else:
            labels[node] = unlabelled(value)
    return LabelledGraph(graph, labels, axes_of, store.components(), unknown)


def unlabelled(value: Any) -> Any:
    """Return axes without labels for a traced value: a tensor, or several."""
    if isinstance(value, Tensor):
        return [None] * value.dim()
    if isinstance(value, (list, tuple)):
        return [unlabelled(item) for item in value]
    return []


def _call(node: Node, labels: Mapping[Node, Any], store: LabelStore, unknown: dict[str, str]) -> Any:
    """Return the labels of an operator's output; whatever its rule cannot say pins all that it touches."""
    name, value = operator_name(node), node.meta.get("val")
    if not isinstance(value, (Tensor, list, tuple)):  # a size, or nothing
        return []
    function = RULES.get(name)
    num_ties, num_pins = len(store.ties), len(store.pins)
    why = f"meets operator {name}, which has no rule{place_of(node)}"
    if function is not None:
        try:
            result = function(Call(node, labels, store))
            if _fits(result, value):
                return result
            why = f"meets operator {name} in a shape that its rule does not cover{place_of(node)}"
        except (UnsupportedError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            detail = f"{error}" if isinstance(error, UnsupportedError) else "is used in an unexpected way"
            why = f"meets operator {name}, which {detail}{place_of(node)}"
    elif any(_has_labels(labels[source]) for source in node.all_input_nodes):
        unknown.setdefault(name, place_of(node).strip(" ()"))
    del store.ties[num_ties:], store.pins[num_pins:]
    for source in node.all_input_nodes:
        _pin_all(labels[source], store, why)
    return unlabelled(value)


def _fits(result: Any, value: Any) -> bool:
    """Return whether labels have the sizes of the traced value."""
    if isinstance(value, Tensor):
        sizes = tensor_sizes(value)
        return len(result) == len(sizes) and all(
            axis is None or len(axis) == size for axis, size in zip(result, sizes, strict=True)
        )
    return all(map(_fits, result, value))


def _pin_all(axes: Any, store: LabelStore, reason: str) -> None:
    for axis in axes:
        if isinstance(axis, list):
            _pin_all(axis, store, reason)
        else:
            store.pin(axis, reason)


def _has_labels(axes: Any) -> bool:
    return any(_has_labels(axis) if isinstance(axis, list) else axis is not None for axis in axes)
