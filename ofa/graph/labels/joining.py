"""Rules of operators that join tensors, cut them, and reorder axes or channels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ofa.graph.labels.call import Call, UnsupportedError, axis_index, rule, sizes_of
from ofa.graph.labels.store import Axes, Axis

# `x[a:]` ends at the largest integer.
_OPEN_END = 1 << 40


@rule("cat concat concatenate")
def concatenation(call: Call) -> Axes:
    """Concatenate labels along one axis and tie the others."""
    nodes: list[Node] = [node for node in call.arguments["tensors"] if sizes_of(node) != (0,)]
    dim = axis_index(call.number("dim"), len(call.out_sizes))
    axes = _tied(call, nodes, skip=dim)
    parts = [call.labels[node][dim] for node in nodes]
    if any(part is not None for part in parts):
        axes[dim] = np.concatenate(
            [call.channels(part, sizes_of(node)[dim]) for part, node in zip(parts, nodes, strict=True)]
        )
    return axes


@rule("stack")
def stacking(call: Call) -> Axes:
    """Tie all axes and insert one without channels."""
    axes = _tied(call, call.arguments["tensors"], skip=None)
    axes.insert(axis_index(call.number("dim"), len(call.out_sizes)), None)
    return axes


def _tied(call: Call, nodes: list[Node], skip: int | None) -> Axes:
    axes: Axes = list(call.labels[nodes[0]])
    for node in nodes[1:]:
        for dim, axis in enumerate(call.labels[node]):
            if dim != skip:
                axes[dim] = call.tie(axes[dim], axis)
    if skip is not None:
        axes[skip] = None
    return axes


@rule("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes")
def splitting(call: Call) -> list[Axes]:
    """Cut the labels of one axis."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    if sum(int(part.shape[dim]) for part in call.node.meta["val"]) != call.sizes()[dim]:
        raise UnsupportedError("cuts parts that overlap")
    results, start = [], 0
    for part in call.node.meta["val"]:
        stop = start + int(part.shape[dim]) if axes[dim] is not None else start
        results.append([_cut(axis, start, stop) if i == dim else axis for i, axis in enumerate(axes)])
        start = stop
    return results


def _cut(axis: Axis, start: int, stop: int) -> Axis:
    return None if axis is None else axis[start:stop]


@rule("getitem")
def item(call: Call) -> Axes:
    """Return one of several results."""
    source, index = call.node.args
    assert isinstance(source, Node) and isinstance(index, int)
    return list(call.labels[source][index])


@rule("slice")
def slicing(call: Call) -> Axes:
    """Cut the labels of one axis."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    axis = axes[dim]
    if axis is not None:
        start, stop, step = (call.arguments[name] for name in ("start", "end", "step"))
        if step != 1:
            call.pin(axis, "is read in steps by")
        axes[dim] = axis[slice(start, None if stop is None or stop > _OPEN_END else stop, step)]
    return axes


@rule("narrow")
def narrowing(call: Call) -> Axes:
    """Cut the labels of one axis."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    axes[dim] = _cut(axes[dim], call.number("start"), call.number("start") + call.number("length"))
    return axes


@rule("select")
def selection(call: Call) -> Axes:
    """Drop an axis, whose channels stay."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    call.pin(axes[dim], "has one index read by")
    del axes[dim]
    return axes


@rule("unbind")
def unbinding(call: Call) -> list[Axes]:
    """Drop an axis, whose channels stay, in each of the results."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    call.pin(axes[dim], "is taken apart by")
    del axes[dim]
    return [list(axes) for _ in call.node.meta["val"]]


@rule("index")
def indexing(call: Call) -> Axes:
    """Keep the axes of a table that are not read by index; channels that are indexed stay."""
    axes, indices = call.axes(), list(call.arguments["indices"])
    dims = [dim for dim, index in enumerate(indices) if index is not None]
    nodes = [indices[dim] for dim in dims]
    if any(node.meta["val"].dtype == torch.bool and len(sizes_of(node)) > 1 for node in nodes):
        raise UnsupportedError("reads several axes by a mask")
    for dim in dims:
        call.pin(axes[dim], "is read by index in")
    for node in nodes:
        for axis in call.labels[node]:
            call.pin(axis, "holds indices of")
    others = [axis for dim, axis in enumerate(axes) if dim not in dims]
    rank = len(call.out_sizes) - len(others)
    is_block = dims == list(range(dims[0], dims[0] + len(dims)))  # Otherwise the new axes come first.
    start = dims[0] if is_block else 0
    return [*others[:start], *[None] * rank, *others[start:]]


@rule("index_select")
def index_selection(call: Call) -> Axes:
    """Keep the axes that are not read by index; channels that are indexed stay."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    call.pin(axes[dim], "is read by index in")
    for axis in call.axes("index"):
        call.pin(axis, "holds indices of")
    axes[dim] = None
    return axes


@rule("permute transpose t numpy_T swapaxes adjoint mT")
def reordering(call: Call) -> Axes:
    """Reorder the axes."""
    axes = call.axes()
    order = list(range(len(axes)))
    if call.name == "permute":
        order = [axis_index(dim, len(axes)) for dim in call.numbers("dims")]
    elif call.name in ("transpose", "swapaxes"):
        names = ("dim0", "dim1") if call.name == "transpose" else ("axis0", "axis1")
        first, second = (axis_index(call.number(name), len(axes)) for name in names)
        order[first], order[second] = order[second], order[first]
    elif call.name in ("t", "numpy_T"):
        order = order[::-1]
    else:
        order[-2:] = order[-1], order[-2]
    return [axes[dim] for dim in order]


@rule("roll flip cumsum cumprod cummax cummin sort msort argsort topk")
def ordering(call: Call) -> Axes | list[Axes]:
    """Keep all axes but those whose order counts; channels of such an axis stay."""
    axes, value = call.axes(), call.node.meta["val"]
    dims = call.numbers("dims" if "dims" in call.arguments else "dim")
    for dim in dims or range(len(axes)):
        call.pin(axes[dim], "is used in its order by")
        axes[dim] = None
    return axes if isinstance(value, Tensor) else [list(axes) for _ in value]


@rule("glu")
def gated_linear_unit(call: Call) -> Axes:
    """Tie the two halves of one axis."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    axis = axes[dim]
    if axis is not None:
        axes[dim] = call.tie(axis[: len(axis) // 2], axis[len(axis) // 2 :])
    return axes


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Axes:
    """Tie the channels that make one output channel."""
    axes, factor = call.axes(), call.number("upscale_factor")
    for axis in axes[-2:]:
        call.pin(axis)
    if axes[-3] is not None:
        axes[-3] = call.store.tie_along(axes[-3].reshape(-1, factor * factor), 1)
    return axes


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Axes:
    """Repeat the label of a channel for all that it becomes."""
    axes, factor = call.axes(), call.number("downscale_factor")
    for axis in axes[-2:]:
        call.pin(axis)
    if axes[-3] is not None:
        axes[-3] = np.repeat(axes[-3], factor * factor)
    return axes


@rule("im2col")
def patches_of_image(call: Call) -> Axes:
    """Repeat the label of a channel for each place of the kernel."""
    axes, kernel = call.axes(), call.numbers("kernel_size")
    for axis in axes[-2:]:
        call.pin(axis)
    channels = axes[-3]
    return [*axes[:-3], None if channels is None else np.repeat(channels, math.prod(kernel)), None]


@rule("col2im")
def image_of_patches(call: Call) -> Axes:
    """Tie the channels of all places of the kernel that make one output channel."""
    axes, kernel = call.axes(), call.numbers("kernel_size")
    call.pin(axes[-1])
    channels = axes[-2]
    if channels is not None:
        channels = call.store.tie_along(channels.reshape(-1, math.prod(kernel)), 1)
    return [*axes[:-2], channels, None, None]


@rule("unfold")
def windows(call: Call) -> Axes:
    """Insert the axis of a window at the end; channels that windows run over stay."""
    axes = call.axes()
    dim = axis_index(call.number("dimension"), len(axes))
    call.pin(axes[dim], "is read in windows by")
    axes[dim] = None
    return [*axes, None]


@rule("channel_shuffle")
def channel_shuffle(call: Call) -> Axes:
    """Reorder the labels; groups of equal size change alike."""
    axes, groups = call.axes(), call.number("groups")
    if axes[1] is not None:
        by_group = axes[1].reshape(groups, -1)
        call.store.tie_along(by_group, 0)
        axes[1] = by_group.T.ravel()
    return axes
