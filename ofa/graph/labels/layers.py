"""Rules of convolutions, linear layers and norms."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from ofa.graph.labels.call import Call, UnsupportedError, rule
from ofa.graph.labels.store import Axes, Axis, Labels


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
def convolution(call: Call) -> Axes:
    """Tie inputs to columns; the outputs are the rows. With groups, a whole group is a unit."""
    transposed, groups = "transpose" in call.name, call.number("groups")
    axes, weight = call.axes("input"), call.axes("weight")
    in_sizes, rank = call.sizes("input"), len(call.sizes("weight"))
    if len(axes) != rank:
        raise UnsupportedError("has no batch axis")
    for axis in [*weight[2:], *axes[2:]]:
        call.pin(axis, "is convolved as space by")
    rows, columns = (weight[1], weight[0]) if transposed else (weight[0], weight[1])
    channels = call.channels(axes[1], in_sizes[1])
    num_outputs = call.out_sizes[1]
    if groups == 1:
        call.tie(channels, columns)
        outputs = call.channels(rows, num_outputs)
    else:
        outputs = _grouped(call, channels, weight, num_outputs, groups)
    return [axes[0], _with_bias(call, outputs), *[None] * (rank - 2)]


def _grouped(call: Call, channels: Labels, weight: Axes, num_outputs: int, groups: int) -> Labels:
    """Tie all inputs and outputs of each group, and return the outputs."""
    store = call.store
    call.pin(weight[1], "is an axis within the groups of")
    if "transpose" in call.name:
        call.tie(channels, weight[0])
        outputs = store.fresh(num_outputs)
    else:
        outputs = call.channels(weight[0], num_outputs)
    first_inputs = store.tie_along(channels.reshape(groups, -1), 1)
    first_outputs = store.tie_along(outputs.reshape(groups, -1), 1)
    call.tie(first_inputs, first_outputs)
    return np.repeat(first_inputs, num_outputs // groups)


def _with_bias(call: Call, outputs: Axis) -> Axis:
    bias = call.optional_axes("bias")
    return outputs if not bias else call.tie(outputs, bias[0]) if outputs is not None else outputs


@rule("linear")
def linear(call: Call) -> Axes:
    """Tie inputs to columns; the outputs are the rows."""
    axes, weight = call.axes("input"), call.axes("weight")
    if len(weight) != 2:
        raise UnsupportedError("has a weight that is no matrix")
    call.tie(call.channels(axes[-1], call.sizes("input")[-1]), weight[1])
    return [*axes[:-1], _with_bias(call, weight[0])]


@rule("bilinear")
def bilinear(call: Call) -> Axes:
    """Tie each of the two inputs to an axis of the weight; the outputs are the rows."""
    axes, weight = call.axes("input1"), call.axes("weight")
    for index, name in enumerate(("input1", "input2")):
        call.tie(call.channels(call.axes(name)[-1], call.sizes(name)[-1]), weight[index + 1])
    batch = [call.tie(*pair) for pair in zip(axes[:-1], call.axes("input2")[:-1], strict=True)]
    return [*batch, _with_bias(call, weight[0])]


@rule("_weight_norm")
def norm_of_weight(call: Call) -> Axes:
    """Tie the lengths to the axis of the directions that they belong to."""
    axes, lengths, dim = call.axes("v"), call.axes("g"), call.number("dim")
    if lengths and dim >= 0:
        axes[dim] = call.tie(axes[dim], lengths[dim])
    return axes


@rule("batch_norm instance_norm group_norm _native_batch_norm_legit_no_training")
def norm_of_channels(call: Call) -> Axes:
    """Tie scale, shift and statistics to axis 1; of a group norm, channel i of all groups is one unit."""
    axes = call.axes("input")
    if call.name == "group_norm":
        groups = call.number("num_groups")
        if groups > 1 and axes[1] is not None:
            call.store.tie_along(axes[1].reshape(groups, -1), 0)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(call.arguments.get(name), Node):
            axes[1] = call.tie(call.channels(axes[1], call.sizes("input")[1]), call.axes(name)[0])
    return axes


@rule("layer_norm rms_norm")
def norm_of_last_axes(call: Call) -> Axes:
    """Tie scale and shift to the last axes."""
    axes, sizes = call.axes("input"), call.sizes("input")
    for name in ("weight", "bias"):
        for index, axis in enumerate(call.optional_axes(name) or []):
            dim = len(axes) - len(call.axes(name)) + index
            if axis is not None:
                axes[dim] = call.tie(call.channels(axes[dim], sizes[dim]), axis)
    return axes


@rule("embedding")
def embedding(call: Call) -> Axes:
    """Return the columns of the table as the last axis; its rows stay."""
    table, indices = call.axes("weight"), call.axes("indices")
    call.pin(table[0], "is looked up by")
    for axis in indices:
        call.pin(axis, "holds indices of")
    return [*[None] * len(indices), table[1]]
