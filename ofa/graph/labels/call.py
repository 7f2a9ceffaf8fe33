"""`Call`: one operator of a captured graph with its arguments by name and the labels of its inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ofa.graph.labels.store import Axes, Axis, Labels, LabelStore

Result = Axes | list[Axes]
Rule = Callable[["Call"], Result]
RULES: dict[str, Rule] = {}
_TORCH_FOLDER = str(Path(torch.__file__).parent)
# A prime that is the size of no usual axis, so that it divides no product of others.
_SIZE_FROM_DATA = 1009


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators by their name without overload and without trailing underscore."""

    def register(function: Rule) -> Rule:
        for text in names:
            for name in text.split():
                assert name not in RULES, name
                RULES[name] = function
        return function

    return register


class UnsupportedError(Exception):
    """An operator that is used in a way that its rule does not cover; the text says which."""


def operator_name(node: Node) -> str:
    """Return the name of a node's operator without overload and trailing underscore, e.g. "conv2d"."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.split(".")[0].removesuffix("_")


def sizes_of(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor; symbolic sizes as in the example."""
    return tensor_sizes(node.meta["val"])


def tensor_sizes(value: Tensor) -> tuple[int, ...]:
    """Return the shape of a traced tensor; symbolic sizes as in the example."""
    return tuple(size_hint(size) for size in value.shape)


def size_hint(size: int | torch.SymInt) -> int:
    """Return a size, a symbolic one as in the example; a stand-in for one that depends on data."""
    if isinstance(size, int):
        return size
    hint = size.node.hint
    return hint if isinstance(hint, int) else _SIZE_FROM_DATA


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        node: the call in the graph.
        labels: labels of the nodes so far.
        store: all labels, to which the rule adds ties and pins.
    """

    node: Node
    labels: Mapping[Node, Any]
    store: LabelStore

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Arguments by the names of the operator's schema, defaults included."""
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            return {str(index): value for index, value in enumerate(self.node.args)}
        values = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        values |= dict(zip((a.name for a in schema.arguments), self.node.args, strict=False))
        return values | dict(self.node.kwargs)

    @property
    def name(self) -> str:
        """Name of the operator."""
        return operator_name(self.node)

    @property
    def reason(self) -> str:
        """Where the operator stands in the user's code, for pins."""
        return f"{self.name}{place_of(self.node)}"

    def input(self, name: str = "self") -> Node:
        """Return the node of a tensor argument."""
        value = self.arguments[name]
        if not isinstance(value, Node):
            raise UnsupportedError(f"{name} is no tensor")
        return value

    def read(self, node: Node) -> None:
        """Say that the rule has looked at an operand, whose labels do not count."""
        self.labels[node]

    def axes(self, name: str = "self") -> Axes:
        """Return a copy of the labels of a tensor argument."""
        return list(self.labels[self.input(name)])

    def optional_axes(self, name: str) -> Axes | None:
        """Return the labels of a tensor argument; None if it is not given."""
        return self.axes(name) if isinstance(self.arguments.get(name), Node) else None

    def sizes(self, name: str = "self") -> tuple[int, ...]:
        """Return the shape of a tensor argument."""
        return sizes_of(self.input(name))

    @property
    def out_sizes(self) -> tuple[int, ...]:
        """Shape of the output."""
        return sizes_of(self.node)

    def number(self, name: str) -> int:
        """Return an integer argument."""
        value = self.arguments[name]
        if not isinstance(value, int):
            raise UnsupportedError(f"{name} is not a fixed number")
        return value

    def numbers(self, name: str) -> list[int]:
        """Return an argument that is a list of integers; a single one counts as a list."""
        value = self.arguments[name]
        values = [value] if isinstance(value, int) else list(value or ())
        if not all(isinstance(item, int) for item in values):
            raise UnsupportedError(f"{name} has sizes that are not fixed")
        return values

    def tie(self, first: Axis, second: Axis) -> Axis:
        """Tie two axes where they meet in this operator; None where one of them has no labels."""
        return self.store.tie(first, second, f"is combined with channels that stay by {self.reason}")

    def channels(self, axis: Axis, size: int) -> Labels:
        """Return the labels of an axis; labels that stay where it has none."""
        if axis is not None:
            return axis
        return self.store.constant(size, f"reads channels that stay in {self.reason}")

    def pin(self, axis: Axis, why: str = "is used as a whole by") -> None:
        """Let an axis stay because of this operator."""
        self.store.pin(axis, f"{why} {self.reason}")


def place_of(node: Node) -> str:
    """Return " (file.py:123)" of the user's line that a node comes from; empty if it is unknown.

    The innermost line outside PyTorch counts.
    """
    places = re.findall(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace") or ""))
    outside = [place for place in places if not place[0].startswith(_TORCH_FOLDER)]
    return f" ({Path(outside[-1][0]).name}:{outside[-1][1]})" if outside else ""


def letters_of(equation: str) -> tuple[list[str], str]:
    """Return the letters of the axes of each operand of an einsum, and of its result.

    Raises:
        UnsupportedError: for an ellipsis.
    """
    text = equation.replace(" ", "")
    if "." in text:
        raise UnsupportedError(f"has the equation {equation}")
    operands, arrow, output = text.partition("->")
    if not arrow:
        letters = operands.replace(",", "")
        output = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return operands.split(","), output


def axis_index(dim: int, rank: int) -> int:
    """Return a dimension as a number from 0."""
    return dim % rank if rank else 0


def broadcast(call: Call, operands: Sequence[tuple[tuple[int, ...], Axes]]) -> Axes:
    """Tie operands axis by axis as broadcasting aligns them, and return the axes of the result."""
    rank = len(call.out_sizes)
    out: Axes = [None] * rank
    seen = [False] * rank
    for sizes, axes in operands:
        for index, (size, axis) in enumerate(zip(sizes, axes, strict=True)):
            dim = rank - len(sizes) + index
            if size == 1 and call.out_sizes[dim] > 1:
                continue
            out[dim] = call.tie(out[dim], axis) if seen[dim] else axis
            seen[dim] = True
    return out
