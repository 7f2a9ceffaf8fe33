"""Rules of operators that work element by element, of pooling and of reductions."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.fx import Node

from ofa.graph.labels.call import Call, UnsupportedError, axis_index, broadcast, rule, sizes_of
from ofa.graph.labels.store import Axes


@rule(
    "add sub mul div maximum minimum pow where lerp addcmul addcdiv eq ne gt lt ge le rsub atan2 fmod",
    "remainder masked_fill copy floor_divide true_divide logical_and logical_or logical_xor hypot",
    "bitwise_and bitwise_or bitwise_not xlogy prelu_elementwise clamp clamp_min clamp_max copysign",
)
def elementwise(call: Call) -> Axes:
    """Tie all operands with broadcasting."""
    nodes = [value for value in call.arguments.values() if isinstance(value, Node)]
    tensors = [node for node in nodes if isinstance(node.meta.get("val"), Tensor)]
    return broadcast(call, [(sizes_of(node), call.labels[node]) for node in tensors])


@rule(
    "relu gelu silu hardswish hardsigmoid sigmoid tanh elu celu selu leaky_relu hardtanh relu6 mish softplus",
    "exp exp2 log log2 log1p expm1 sqrt rsqrt abs neg reciprocal square dropout",
    "feature_dropout alpha_dropout clone contiguous detach to _to_copy type_as alias lift_fresh_copy erf",
    "sin cos logical_not bernoulli zeros_like ones_like empty_like rand_like randn_like full_like sign floor",
    "ceil round",
    "trunc frac nan_to_num native_dropout threshold hardshrink softshrink tanhshrink softsign log_sigmoid",
    "logsigmoid rrelu isnan isinf isfinite _assert_tensor_metadata_ zero fill float half bfloat16 double",
    "softmax log_softmax _softmax _log_softmax",
)
def unary(call: Call) -> Axes:
    """Keep the axes of the only operand; a softmax, too, knows no order of channels."""
    if call.name == "type_as":
        call.read(call.input("other"))  # Only its type counts.
    return call.axes("self" if "self" in call.arguments else "input")


@rule(
    "zeros ones full empty rand randn arange new_zeros new_ones new_full new_empty scalar_tensor eye linspace"
)
def constants(call: Call) -> Axes:
    """Return axes without labels: of an operand only type and device count."""
    for node in call.node.all_input_nodes:
        call.read(node)
    return [None] * len(call.out_sizes)


@rule("prelu")
def prelu(call: Call) -> Axes:
    """Tie the slopes to axis 1, where there is one of each channel."""
    axes, slopes = call.axes(), call.axes("weight")
    if slopes and slopes[0] is not None:
        axes[1] = call.tie(axes[1], slopes[0])
    return axes


@rule(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d",
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    "max_pool2d_with_indices upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d",
    "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)
def pooling(call: Call) -> Axes | list[Axes]:
    """Keep batch and channels; the axes of space change."""
    axes = call.axes("self" if "self" in call.arguments else "input")
    space = next(n for n in (1, 2, 3) if f"{n}d" in call.name)
    is_whole = call.name.startswith("adaptive_avg") and set(call.numbers("output_size")) == {1}
    for axis in axes[len(axes) - space :]:
        if is_whole:
            continue  # A mean of a whole axis knows no order.
        call.pin(axis, "is resized as space by")
    result = [*axes[: len(axes) - space], *[None] * space]
    several = not isinstance(call.node.meta["val"], Tensor)
    return [list(result) for _ in call.node.meta["val"]] if several else result


@rule("grid_sampler grid_sampler_2d grid_sampler_3d")
def sampling(call: Call) -> Axes:
    """Keep batch and channels; positions of the grid stay."""
    axes = call.axes("input")
    for axis in (*axes[2:], *call.axes("grid")):
        call.pin(axis, "is sampled as space by")
    return [*axes[:2], *[None] * (len(axes) - 2)]


@rule(
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d",
    "replication_pad1d replication_pad2d replication_pad3d",
)
def padding(call: Call) -> Axes:
    """Add labels that stay where channels are padded with a constant; others may not be padded."""
    axes = call.axes()
    has_constant = call.name == "constant_pad_nd" or call.arguments.get("mode") == "constant"
    amounts = call.numbers("pad" if "pad" in call.arguments else "padding")
    for index in range(len(amounts) // 2):
        dim, before, after = len(axes) - 1 - index, amounts[2 * index], amounts[2 * index + 1]
        axis = axes[dim]
        if axis is None or not (before or after):
            continue
        if before < 0 or after < 0:
            raise UnsupportedError("cuts channels")
        if not has_constant:
            call.pin(axis, "is padded with its own values by")
            axes[dim] = None
            continue
        ends = [call.store.constant(size, f"is padding of {call.reason}") for size in (before, after)]
        axes[dim] = np.concatenate([ends[0], axis, ends[1]])
    return axes


@rule("mean sum amax amin var std norm linalg_vector_norm all any logsumexp prod")
def reduction(call: Call) -> Axes:
    """Drop the reduced axes; a reduction over channels knows no order."""
    axes, arguments = call.axes(), call.arguments
    given = arguments.get("dim")
    dims = range(len(axes)) if given is None or given == [] else call.numbers("dim")
    reduced = {axis_index(dim, len(axes)) for dim in dims}
    if len(call.out_sizes) == len(axes):
        return [None if dim in reduced else axis for dim, axis in enumerate(axes)]
    return [axis for dim, axis in enumerate(axes) if dim not in reduced]


@rule("max min median argmax argmin var_mean std_mean aminmax")
def reduction_without_channels(call: Call) -> Axes | list[Axes]:
    """Drop a reduced axis without channels; positions of channels are not known to any order."""
    axes, arguments = call.axes(), call.arguments
    if isinstance(arguments.get("other"), Node):
        return elementwise(call)
    if arguments.get("dim") is None:
        raise UnsupportedError("reduces all axes")
    dims = {axis_index(dim, len(axes)) for dim in call.numbers("dim")}
    if call.name not in ("var_mean", "std_mean"):
        for dim in dims:
            call.pin(axes[dim], "is searched by")
    value = call.node.meta["val"]
    rank = len((value if isinstance(value, Tensor) else value[0]).shape)
    if rank == len(axes):
        result: Axes = [None if dim in dims else axis for dim, axis in enumerate(axes)]
    else:
        result = [axis for dim, axis in enumerate(axes) if dim not in dims]
    return result if isinstance(value, Tensor) else [list(result) for _ in value]
