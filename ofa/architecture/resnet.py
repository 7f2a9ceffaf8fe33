"""The family of residual networks of bottlenecks with elastic depth, widths and stem."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from typing_extensions import override

from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.layer import LayerSpec, Operator, make_divisible, output_size
from ofa.architecture.slots import Slot, gene_columns, size_after
from ofa.common.errors import UserError
from ofa.space.staged import STEM_GENES, StagedSpace, check_resolutions, stage_gene
from ofa.space.stages import StemSpec

POOL_STRIDE = 2


def resnet(space: StagedSpace) -> tuple[Slot, ...]:
    """ResNet-D with elastic depth, expand ratio, widths and stem (He et al. 2016, 2019; Cai et al. 2020).

    The stem is a strided convolution, residual middle convolutions, a convolution to its full width, and
    max-pooling. The first block of each stage projects its shortcut.

    Raises:
        UserError: if the space declares something that the family does not support, or lacks a required part.
    """
    stem = _check(space)
    strides_of_stages = math.prod(stage.stride for stage in space.stages)
    check_resolutions(space, space.stem_stride * POOL_STRIDE * strides_of_stages)
    slots = [*_stem(space, stem)]
    strides: tuple[int, ...] = (space.stem_stride, POOL_STRIDE)
    for s, stage in enumerate(space.stages):
        for b in range(stage.depths[-1]):
            slots.append(_block(space, s, b, strides))
            strides += (stage.stride if b == 0 else 1,)
    last = len(space.stages) - 1
    width = gene_columns(space, {"width": stage_gene("width", last)})
    resolution = gene_columns(space, {"resolution": "resolution"})
    channels = _widths(space, space.stages[last].channels)

    def build_pool(resolution: int, width: float) -> LayerSpec:
        return PoolSpec(size_after(resolution, strides), channels(width), channels(width))

    def build_classifier(width: float) -> LayerSpec:
        return LinearSpec(1, channels(width), space.num_classes)

    return (*slots, Slot(resolution | width, build_pool), Slot(width, build_classifier))


def _check(space: StagedSpace) -> StemSpec:
    problems = []
    if space.stem is None or not space.stages[0].widths:
        problems.append("It needs stem and the widths of every stage; a single choice each is enough.")
    if any(len(stage.kernel_sizes) > 1 for stage in space.stages):
        problems.append("Kernel sizes are not elastic; expected one per stage.")
    if any(stage.squeeze_excite for stage in space.stages):
        problems.append("It has no squeeze-excite; set squeeze_excite to false.")
    if space.head_channels or space.first_block_channels is not None:
        problems.append("Its stages lead to the classifier; leave head_channels empty.")
    if problems or space.stem is None:
        raise UserError(f"Space {space.name!r} of family {space.family}: {' '.join(problems)}")
    return space.stem


def _widths(space: StagedSpace, channels: int) -> Callable[[float], int]:
    """Return the function from a width multiplier to the number of channels."""
    return lambda width: make_divisible(channels * space.width_multiplier * width)


def _stem(space: StagedSpace, stem: StemSpec) -> tuple[Slot, ...]:
    epsilon, strides = space.bn_epsilon, (space.stem_stride,)
    depth_gene, inner_gene, outer_gene = STEM_GENES
    resolution = gene_columns(space, {"resolution": "resolution"})
    depth = gene_columns(space, {"depth": depth_gene})
    inner_width = gene_columns(space, {"inner_width": inner_gene})
    outer_width = gene_columns(space, {"outer_width": outer_gene})
    outer = _widths(space, space.stem_channels)

    def inner(width: float) -> int:
        return make_divisible(outer(width) // 2)

    def build_first(resolution: int, inner_width: float) -> LayerSpec:
        sizes = (resolution, space.in_channels, inner(inner_width), 3, space.stem_stride)
        return ConvSpec(*sizes, "relu", bn_epsilon=epsilon)

    def build_middle(position: int) -> Callable[..., LayerSpec | None]:
        def build(resolution: int, inner_width: float, depth: int) -> LayerSpec | None:
            sizes = (size_after(resolution, strides), inner(inner_width), inner(inner_width), 3, 1)
            middle = ConvSpec(*sizes, "relu", bn_epsilon=epsilon, add_input=True)
            return middle if position < depth else None

        return build

    def build_last(resolution: int, inner_width: float, outer_width: float) -> LayerSpec:
        sizes = (size_after(resolution, strides), inner(inner_width), outer(outer_width), 3, 1)
        return ConvSpec(*sizes, "relu", bn_epsilon=epsilon)

    def build_pool(resolution: int, outer_width: float) -> LayerSpec:
        size, width = size_after(resolution, strides), outer(outer_width)
        return MaxPoolSpec(size, width, width, 3, POOL_STRIDE)

    middle_genes = resolution | inner_width | depth
    middle = (Slot(middle_genes, build_middle(position)) for position in range(stem.depths[-1]))
    return (
        Slot(resolution | inner_width, build_first),
        *middle,
        Slot(resolution | inner_width | outer_width, build_last),
        Slot(resolution | outer_width, build_pool),
    )


def _block(space: StagedSpace, s: int, b: int, strides: tuple[int, ...]) -> Slot:
    """Return block `b` of stage `s`, after layers of `strides`."""
    stage = space.stages[s]
    source = space.stages[s - 1].channels if s else space.stem_channels
    in_channels, out_channels = _widths(space, source), _widths(space, stage.channels)

    def bottleneck(
        resolution: int, kernel_size: int, expand_ratio: float, channels: int, width: float, rank: float
    ) -> LayerSpec:
        out = out_channels(width)
        mid = make_divisible(round(out * expand_ratio))
        return BottleneckSpec(
            size_after(resolution, strides),
            channels,
            out,
            kernel_size,
            stage.stride if b == 0 else 1,
            stage.activation,
            mid_channels=mid,
            project=b == 0,
            bn_epsilon=space.bn_epsilon,
            rank=None if rank == 1 else make_divisible(rank * kernel_size * mid),
        )

    def build_first(
        resolution: int,
        kernel_size: int,
        expand_ratio: float,
        width: float,
        source_width: float,
        rank: float = 1,
    ) -> LayerSpec:
        return bottleneck(resolution, kernel_size, expand_ratio, in_channels(source_width), width, rank)

    def build_next(
        resolution: int, kernel_size: int, expand_ratio: float, width: float, depth: int, rank: float = 1
    ) -> LayerSpec | None:
        if b >= depth:
            return None
        return bottleneck(resolution, kernel_size, expand_ratio, out_channels(width), width, rank)

    names = {
        "resolution": "resolution",
        "kernel_size": stage_gene("kernel_size", s, b),
        "expand_ratio": stage_gene("expand_ratio", s, b),
        "width": stage_gene("width", s),
    }
    if b == 0:
        names["source_width"] = stage_gene("width", s - 1) if s else STEM_GENES[-1]
    else:
        names["depth"] = stage_gene("depth", s)
    if stage.ranks:
        names["rank"] = stage_gene("rank", s, b)
    return Slot(gene_columns(space, names), build_next if b else build_first)


@dataclass(frozen=True)
class BottleneckSpec(LayerSpec):
    """Bottleneck: 1x1 reduction, k x k convolution with the stride, 1x1 expansion, addition, activation.

    (He et al. 2016.) With `project`, the shortcut is average-pooling by the stride and a 1x1 convolution
    (variant D of He et al. 2019); without it, the shortcut is the input. With a `rank`, the middle is split:
    k x 1 to so many channels, and 1 x k back (Jaderberg et al. 2014).
    """

    mid_channels: int = field(kw_only=True)
    rank: int | None = field(default=None, kw_only=True)
    kernel_size: int
    stride: int
    activation: str
    project: bool
    bn_epsilon: float = 1e-5

    @property
    @override
    def key(self) -> str:
        return (
            f"bottleneck-in{self.input_size}x{self.in_channels}-mid{self.mid_channels}"
            f"-out{self.out_channels}-k{self.kernel_size}-s{self.stride}-{self.activation}"
            f"{'-project' if self.project else ''}{'' if self.rank is None else f'-rank{self.rank}'}"
        )

    @property
    @override
    def residual(self) -> bool:
        """Whether the input is added to the output unchanged."""
        return not self.project

    @property
    @override
    def operators(self) -> tuple[Operator, ...]:
        """All operators; the shortcut's convolution comes last."""
        size, out_size = self.input_size, output_size(self.input_size, self.stride)
        mid = self.mid_channels
        operators = [
            Operator(size, self.in_channels, mid, batch_norm=True),
            *self._middle,
            Operator(out_size, mid, self.out_channels, batch_norm=True),
        ]
        if self.project:
            operators.append(Operator(out_size, self.in_channels, self.out_channels, batch_norm=True))
        return tuple(operators)

    @property
    def _middle(self) -> tuple[Operator, ...]:
        size, mid, side, stride = self.input_size, self.mid_channels, self.kernel_size, self.stride
        if self.rank is None:
            return (Operator(size, mid, mid, side, stride, batch_norm=True),)
        last_size = output_size(size, stride)
        return (
            Operator(size, mid, self.rank, side, stride, horizontal=(size, 1, 1)),
            Operator(last_size, self.rank, mid, 1, 1, batch_norm=True, horizontal=(size, side, stride)),
        )

    @property
    @override
    def peak_elements(self) -> int:
        """The largest number of activation elements alive at once.

        The input lives until the shortcut has consumed it, after the main path. The output of the main path
        lives until the shortcut is added.
        """
        path = self.operators[: -1 if self.project else None]
        source = path[0].input_elements
        reduce, *others = (op.input_elements + op.output_elements for op in path)
        live = [reduce, *(source + elements for elements in others)]
        if self.project:
            shortcut = self.operators[-1]
            output = shortcut.output_elements
            live.append(shortcut.input_elements + 2 * output)
            if self.stride > 1:
                live.append(source + shortcut.input_elements + output)
        return max(live)
