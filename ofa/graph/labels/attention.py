"""Rules of attention and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from torch.fx import Node

from ofa.graph.labels.call import Call, UnsupportedError, letters_of, rule, sizes_of
from ofa.graph.labels.store import Axes, Axis


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Axes:
    """Tie batch axes, heads among them; queries and keys are contracted along their last axis."""
    query, key, value = (call.axes(name) for name in ("query", "key", "value"))
    call.tie(query[-1], key[-1])
    for axis in (query[-2], key[-2], value[-2]):
        call.pin(axis, "counts tokens of")
    sizes = (call.sizes(name)[:-2] for name in ("query", "key", "value"))
    batch = _tied_batch(call, list(zip((query[:-2], key[:-2], value[:-2]), sizes, strict=True)))
    _tie_mask(call, batch)
    return [*batch, None, value[-1]]


def _tied_batch(call: Call, operands: Sequence[tuple[Axes, tuple[int, ...]]]) -> Axes:
    """Tie the batch axes of operands, pairs (axes, sizes), as broadcasting aligns them."""
    rank = max(len(axes) for axes, _ in operands)
    batch: Axes = [None] * rank
    for dim in range(rank):
        indices = [(axes, sizes, dim - rank + len(axes)) for axes, sizes in operands]
        wide = [axes[index] for axes, sizes, index in indices if index >= 0 and sizes[index] > 1]
        if wide:
            batch[dim] = reduce(call.tie, wide)
    return batch


def _tie_mask(call: Call, batch: Axes) -> None:
    mask = call.arguments.get("attn_mask")
    if not isinstance(mask, Node):
        return
    sizes, axes = sizes_of(mask), call.labels[mask]
    for index, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        dim = len(batch) + 2 - len(axes) + index
        if dim >= len(batch):
            call.pin(axis, "counts tokens of")
        elif size > 1:
            batch[dim] = call.tie(batch[dim], axis)


@rule("matmul bmm mm")
def matrix_product(call: Call) -> Axes:
    """Tie the contracted axes and all batch axes."""
    names = ("self", "other" if "other" in call.arguments else "mat2")
    first, second = (call.axes(name) for name in names)
    if len(first) < 2 or len(second) < 2:
        raise UnsupportedError("multiplies vectors")
    sizes = [call.sizes(name) for name in names]
    call.tie(first[-1], second[-2])
    batch = _tied_batch(call, [(first[:-2], sizes[0][:-2]), (second[:-2], sizes[1][:-2])])
    return [*batch, first[-2], second[-1]]


@rule("mv dot vdot")
def vector_product(call: Call) -> Axes:
    """Tie the contracted axes of a matrix, or a vector, and a vector."""
    first, second = (
        call.axes(),
        call.axes("vec" if call.name == "mv" else "tensor" if call.name == "dot" else "other"),
    )
    call.tie(first[-1], second[0])
    return first[:-1]


@rule("addmm baddbmm")
def matrix_product_with_sum(call: Call) -> Axes:
    """Tie the contracted axes, and the summand to the result."""
    names = ("mat1", "mat2") if call.name == "addmm" else ("batch1", "batch2")
    first, second, summand = call.axes(names[0]), call.axes(names[1]), call.axes()
    call.tie(first[-1], second[-2])
    batch = [call.tie(a, b) for a, b in zip(first[:-2], second[:-2], strict=True)]
    result: Axes = [*batch, first[-2], second[-1]]
    lead = len(result) - len(summand)
    for index, (axis, size) in enumerate(zip(summand, call.sizes(), strict=True)):
        if size == call.out_sizes[lead + index]:
            result[lead + index] = call.tie(result[lead + index], axis)
    return result


@rule("einsum")
def einstein_sum(call: Call) -> Axes:
    """Tie all axes of the same letter."""
    inputs, output = letters_of(call.arguments["equation"])
    nodes = call.arguments["tensors"]
    axes_of: dict[str, Axis] = {}
    sizes: dict[str, int] = {}
    for letters, node in zip(inputs, nodes, strict=True):
        for letter, axis, size in zip(letters, call.labels[node], sizes_of(node), strict=True):
            if sizes.get(letter, 1) == 1:  # New, or of size 1 and broadcast.
                axes_of[letter], sizes[letter] = axis, size
            elif size > 1:
                axes_of[letter] = call.tie(axes_of[letter], axis)
    return [axes_of[letter] for letter in output]
