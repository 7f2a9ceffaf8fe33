"""Families of inverted bottlenecks: MobileNetV3, and MobileNetV2 with ProxylessNAS."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import override

from ofa.architecture.common_layers import ConvSpec, LinearSpec, PoolSpec
from ofa.architecture.layer import LayerSpec, Operator, make_divisible, output_size
from ofa.architecture.slots import Slot, gene_columns, size_after
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace, stage_gene


def mobilenet_v3(space: StagedSpace) -> tuple[Slot, ...]:
    """MobileNetV3 with elastic stages (Howard et al. 2019; Cai et al. 2020).

    Raises:
        UserError: if the space declares something that the family does not support.
    """
    _check(space, ("of the expansion before pooling", "of the features after it"))
    body = _body(space, "hard_swish", "relu")
    expand, features = (_width(space, channels) for channels in space.head_channels)

    def build_mix() -> LayerSpec:
        return ConvSpec(1, expand, features, 1, 1, "hard_swish", batch_norm=False)

    head = _features_and_pool(space, body, expand, "hard_swish")
    return (*body.slots, *head, Slot({}, build_mix), _classifier(space, features))


def proxyless_nas(space: StagedSpace) -> tuple[Slot, ...]:
    """MobileNetV2 blocks, without squeeze-excite by design (Sandler et al. 2018; Cai et al. 2019).

    Raises:
        UserError: if the space declares something that the family does not support.
    """
    _check(space, ("of the features before pooling",))
    body = _body(space, "relu6", "relu6")
    features = _width(space, space.head_channels[0])
    head = _features_and_pool(space, body, features, "relu6")
    return (*body.slots, *head, _classifier(space, features))


def _check(space: StagedSpace, head: tuple[str, ...]) -> None:
    problems = []
    if len(space.head_channels) != len(head):
        problems.append(
            f"head_channels are {list(space.head_channels)}; expected {len(head)}: {', '.join(head)}."
        )
    if any(stage.ranks for stage in space.stages):
        problems.append("It has no convolutions that can be split; leave ranks out.")
    if space.stem is not None or space.stages[0].widths:
        problems.append("Its stem and the widths of its stages are not elastic; leave stem and widths out.")
    if problems:
        raise UserError(f"Space {space.name!r} of family {space.family}: {' '.join(problems)}")


@dataclass(frozen=True)
class _Body:
    """Slots up to the last stage, its output channels, and the strides of its layers."""

    slots: tuple[Slot, ...]
    channels: int
    strides: tuple[int, ...]


def _width(space: StagedSpace, channels: int) -> int:
    return make_divisible(channels * space.width_multiplier)


def _body(space: StagedSpace, stem_activation: str, first_activation: str) -> _Body:
    """Return the stem, the block without expansion, and the elastic stages."""
    epsilon, stride = space.bn_epsilon, space.stem_stride
    stem = _width(space, space.stem_channels)
    first = _width(space, space.first_block_channels or space.stem_channels)

    def build_stem(resolution: int) -> LayerSpec:
        return ConvSpec(resolution, space.in_channels, stem, 3, stride, stem_activation, bn_epsilon=epsilon)

    def build_first(resolution: int) -> LayerSpec:
        size, activation = size_after(resolution, (stride,)), first_activation
        return MBConvSpec(
            size, stem, first, 3, 1, activation, False, mid_channels=stem, expand=False, bn_epsilon=epsilon
        )

    resolution = gene_columns(space, {"resolution": "resolution"})
    slots = [Slot(resolution, build_stem), Slot(resolution, build_first)]
    channels = first
    strides: tuple[int, ...] = (stride,)
    for s, stage in enumerate(space.stages):
        for b in range(stage.depths[-1]):
            slots.append(_block(space, s, b, channels, strides))
            strides += (stage.stride if b == 0 else 1,)
            channels = _width(space, stage.channels)
    return _Body(tuple(slots), channels, strides)


def _block(space: StagedSpace, s: int, b: int, in_channels: int, strides: tuple[int, ...]) -> Slot:
    """Return block `b` of stage `s`, after layers of `strides`."""
    stage = space.stages[s]

    def build(
        resolution: int, kernel_size: int, expand_ratio: float, depth: int | None = None
    ) -> LayerSpec | None:
        if depth is not None and b >= depth:
            return None
        return MBConvSpec(
            size_after(resolution, strides),
            in_channels,
            _width(space, stage.channels),
            kernel_size,
            stage.stride if b == 0 else 1,
            stage.activation,
            stage.squeeze_excite,
            mid_channels=make_divisible(round(in_channels * expand_ratio)),
            bn_epsilon=space.bn_epsilon,
        )

    names = {
        "resolution": "resolution",
        "kernel_size": stage_gene("kernel_size", s, b),
        "expand_ratio": stage_gene("expand_ratio", s, b),
    }
    if b >= stage.depths[0]:
        names["depth"] = stage_gene("depth", s)
    return Slot(gene_columns(space, names), build)


def _features_and_pool(space: StagedSpace, body: _Body, features: int, activation: str) -> tuple[Slot, Slot]:
    """Return the last convolution before pooling, and the global pooling."""

    def build_features(resolution: int) -> LayerSpec:
        size = size_after(resolution, body.strides)
        return ConvSpec(size, body.channels, features, 1, 1, activation, bn_epsilon=space.bn_epsilon)

    def build_pool(resolution: int) -> LayerSpec:
        return PoolSpec(size_after(resolution, body.strides), features, features)

    resolution = gene_columns(space, {"resolution": "resolution"})
    return Slot(resolution, build_features), Slot(resolution, build_pool)


def _classifier(space: StagedSpace, features: int) -> Slot:
    return Slot({}, lambda: LinearSpec(1, features, space.num_classes))


@dataclass(frozen=True)
class MBConvSpec(LayerSpec):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, squeeze-excite, 1x1 projection.

    (Sandler et al. 2018; squeeze-excite and hard-swish as in Howard et al. 2019.)
    """

    mid_channels: int = field(kw_only=True)
    kernel_size: int
    stride: int
    activation: str
    squeeze_excite: bool
    expand: bool = True
    bn_epsilon: float = 1e-5

    @property
    @override
    def key(self) -> str:
        flags = ("-se" if self.squeeze_excite else "") + ("" if self.expand else "-noexpand")
        return (
            f"mbconv-in{self.input_size}x{self.in_channels}-mid{self.mid_channels}-out{self.out_channels}"
            f"-k{self.kernel_size}-s{self.stride}-{self.activation}{flags}"
        )

    @property
    @override
    def residual(self) -> bool:
        """Whether the block adds its input: stride 1 and equal widths."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def se_channels(self) -> int:
        """Hidden width of squeeze-excite (reduction 4)."""
        return make_divisible(self.mid_channels // 4)

    @property
    @override
    def operators(self) -> tuple[Operator, ...]:
        size, mid = self.input_size, self.mid_channels
        out_size = output_size(size, self.stride)
        operators = [
            Operator(size, mid, mid, self.kernel_size, self.stride, groups=mid, batch_norm=True),
            Operator(out_size, mid, self.out_channels, batch_norm=True),
        ]
        if self.expand:
            operators.insert(0, Operator(size, self.in_channels, mid, batch_norm=True))
        if self.squeeze_excite:
            hidden = self.se_channels
            squeeze = [Operator(1, mid, hidden, bias=True), Operator(1, hidden, mid, bias=True)]
            operators[-1:-1] = squeeze
        return tuple(operators)
