"""Rules of operators that merge and split axes: view, reshape, flatten, expand."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from ofa.graph.labels.call import (
    RULES,
    Call,
    UnsupportedError,
    axis_index,
    letters_of,
    operator_name,
    rule,
    sizes_of,
)
from ofa.graph.labels.elementwise import elementwise
from ofa.graph.labels.store import Axes, Axis, Labels

# How many operators are looked at from a split axis on to find attention.
_MAX_STEPS = 24
_ATTENTION = ("scaled_dot_product_attention", "matmul", "bmm", "baddbmm")


@rule("expand expand_as broadcast_to")
def expansion(call: Call) -> Axes:
    """Keep axes that are not expanded; an expanded one fits the tensor that it is made for.

    That is the one it is like, or what it meets next in an elementwise operator. Axis 0 counts examples.
    """
    axes, before, after = call.axes(), call.sizes(), call.out_sizes
    lead = len(after) - len(before)
    axes, before = [*[None] * lead, *axes], (*[1] * lead, *before)
    other: Axes = call.axes("other") if "other" in call.arguments else [None] * len(after)
    meets_another = any(RULES.get(operator_name(user)) is elementwise for user in call.node.users)
    for dim, (size, out_size) in enumerate(zip(before, after, strict=True)):
        if size != out_size:
            is_free = dim > 0 and meets_another and "other" not in call.arguments
            axes[dim] = call.store.fresh(out_size) if is_free else other[dim]
    return axes


@rule("repeat tile")
def repetition(call: Call) -> Axes:
    """Repeat the labels of an axis that is repeated as a whole."""
    axes, before, after = call.axes(), call.sizes(), call.out_sizes
    lead = len(after) - len(before)
    pairs = zip(axes, before, after[lead:], strict=True)
    return [*[None] * lead, *[None if axis is None else np.tile(axis, t // s) for axis, s, t in pairs]]


@rule("repeat_interleave")
def repetition_of_each(call: Call) -> Axes:
    """Repeat each label of an axis whose indices are repeated one by one."""
    axes, num_repeats = call.axes(), call.number("repeats")
    if call.arguments["dim"] is None:
        raise UnsupportedError("flattens all axes")
    dim = axis_index(call.number("dim"), len(axes))
    axis = axes[dim]
    axes[dim] = None if axis is None else np.repeat(axis, num_repeats)
    return axes


@rule("squeeze unsqueeze")
def unit_axes(call: Call) -> Axes:
    """Drop or insert axes of size 1."""
    return _reshaped(call)


@rule("view reshape _unsafe_view flatten unflatten view_as reshape_as")
def reshaping(call: Call) -> Axes:
    """Merge and split axes.

    Axes that merge repeat the labels of each of their indices. Of an axis that is split, one of the new axes
    carries the labels, which are tied along the others: heads where attention reads the result, otherwise
    the axis with the most distinct labels.
    """
    if "other" in call.arguments:
        call.read(call.input("other"))  # Only its shape counts.
    return _reshaped(call)


def _reshaped(call: Call) -> Axes:
    axes = call.axes()
    out: Axes = [None] * len(call.out_sizes)
    for rows, columns in _segments(call.sizes(), call.out_sizes):
        inputs = [(axes[row], call.sizes()[row]) for row in rows]
        for column, axis in zip(columns, _segment(call, inputs, columns), strict=True):
            out[column] = axis
    return out


def _segments(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the smallest runs of axes of equal size before and after, as indices."""
    i = j = 0
    while i < len(before) or j < len(after):
        rows: list[int] = []
        columns: list[int] = []
        while True:
            left = math.prod(before[row] for row in rows)
            right = math.prod(after[column] for column in columns)
            if left == right and left > 1 and rows and columns:
                break
            if i == len(before) and j == len(after):
                break
            if (left <= right and i < len(before)) or j == len(after):
                rows.append(i)
                i += 1
            else:
                columns.append(j)
                j += 1
        yield rows, columns


def _segment(call: Call, inputs: Sequence[tuple[Axis, int]], columns: Sequence[int]) -> list[Axis]:
    """Return the axes `columns` of the output, which come from `inputs`: pairs (axis, size)."""
    result: list[Axis] = [None] * len(columns)
    wide_inputs = [(axis, size) for axis, size in inputs if size > 1]
    wide = [index for index, column in enumerate(columns) if call.out_sizes[column] > 1]
    sizes = [call.out_sizes[columns[index]] for index in wide]
    labelled = [axis for axis, _ in wide_inputs if axis is not None]
    if not labelled:
        return result
    if [size for _, size in wide_inputs] == sizes:
        for index, (axis, _) in zip(wide, wide_inputs, strict=True):
            result[index] = axis
        return result
    if len(labelled) > 1:
        widest = max(labelled, key=len)
        for axis in labelled:
            if axis is not widest:
                call.pin(axis, "is merged with other channels by")
        wide_inputs = [(axis if axis is widest else None, size) for axis, size in wide_inputs]
        labelled = [widest]
    grid = np.broadcast_to(
        labelled[0].reshape([size if axis is not None else 1 for axis, size in wide_inputs]),
        [size for _, size in wide_inputs],
    ).reshape(sizes)
    position = _elastic_axis(call, grid, [columns[index] for index in wide])
    flat: Labels = np.moveaxis(grid, position, 0).reshape(sizes[position], -1)
    result[wide[position]] = call.store.tie_along(flat, 1)
    return result


def _elastic_axis(call: Call, grid: Labels, columns: Sequence[int]) -> int:
    """Return which axis of a grid of labels, the output's axes `columns`, carries them."""
    if grid.ndim == 1:
        return 0
    num_distinct = []
    for axis in range(grid.ndim):
        others = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
        num_distinct.append(len(np.unique(others[:, 0])))
    heads = [axis for axis, column in enumerate(columns) if num_distinct[axis] > 1]
    heads = [axis for axis in heads if _is_batch_of_attention(call.node, columns[axis])]
    candidates = heads or range(grid.ndim)
    return max(candidates, key=lambda axis: (num_distinct[axis], axis))


def _is_batch_of_attention(node: Node, dim: int) -> bool:
    """Return whether an axis of a node's output becomes a batch axis of attention or of a matrix product."""
    queue, steps = deque([(node, dim)]), 0
    while queue and steps < _MAX_STEPS:
        source, axis = queue.popleft()
        for user in source.users:
            steps += 1
            if operator_name(user) in _ATTENTION:
                rank = len(sizes_of(source))
                if (0 < axis < rank - 2 or (rank == 3 and axis == 0)) and _all_have(user, axis):
                    return True
                continue
            if operator_name(user) == "einsum":
                if _is_batch_of_einsum(user, source, axis):
                    return True
                continue
            moved = _moved(user, source, axis)
            if moved is not None:
                queue.append((user, moved))
    return False


def _all_have(user: Node, axis: int) -> bool:
    """Return whether no operand of attention or of a product is shared along a batch axis.

    Where heads share a key, their channels are units instead: those of queries and keys, and those of values.
    """
    operands = user.args[1:3] if operator_name(user) == "baddbmm" else user.args[:3]
    sizes = [sizes_of(operand) for operand in operands if isinstance(operand, Node)]
    return all(shape[axis] > 1 for shape in sizes if len(shape) == len(sizes[0]))


def _is_batch_of_einsum(user: Node, source: Node, axis: int) -> bool:
    """Return whether an einsum has the letter of an axis in all operands and in its result."""
    equation, nodes = user.args[:2]
    assert isinstance(equation, str) and isinstance(nodes, (list, tuple))
    operands, output = letters_of(equation)
    letter = operands[nodes.index(source)][axis]
    return axis > 0 and all(letter in letters for letters in (*operands, output))


def _moved(user: Node, source: Node, axis: int) -> int | None:
    """Return where an axis of `source` is in the output of `user`; None where it is not followed."""
    name = operator_name(user)
    if isinstance(source.meta["val"], (list, tuple)):
        return axis if name == "getitem" else None
    rank = len(sizes_of(source))
    arguments: Any = user.args
    if name == "permute":
        order = [axis_index(dim, rank) for dim in arguments[1]]
        return order.index(axis)
    if name in ("transpose", "swapaxes"):
        first, second = (axis_index(dim, rank) for dim in arguments[1:3])
        return {first: second, second: first}.get(axis, axis)
    if name in ("unbind", "select"):
        dim = axis_index(arguments[1], rank) if len(arguments) > 1 else 0
        return None if dim == axis else axis - (dim < axis)
    if name in ("split", "split_with_sizes", "chunk"):
        dim = axis_index(arguments[2], rank) if len(arguments) > 2 else 0
        return None if dim == axis else axis
    if not isinstance(user.meta.get("val"), Tensor):
        return None
    if sizes_of(user) == sizes_of(source):
        return axis
    if name in ("view", "reshape", "_unsafe_view"):
        for rows, columns in _segments(sizes_of(source), sizes_of(user)):
            if axis in rows and columns:
                return columns[-1]
    return None
