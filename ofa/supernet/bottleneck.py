"""Elastic layers of residual networks: max-pooling and the bottleneck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.architecture.common_layers import MaxPoolSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.modules.activations import activate
from ofa.modules.split import composed_weight
from ofa.supernet.layer import ElasticLayer, sort_channels_between
from ofa.supernet.operators import ElasticConvBNAct, prefixed
from ofa.supernet.split import ElasticSplitConvBNAct


class ElasticBottleneckLayer(ElasticLayer[BottleneckSpec]):
    """`BottleneckSpec`: bottleneck with elastic input, mid and output channels, and rank of the middle."""

    def __init__(self, variants: Sequence[BottleneckSpec], dropout: float) -> None:
        """Create the largest of `variants`; all have one kernel size."""
        super().__init__(variants, dropout)
        example = variants[0]
        kernel_size, epsilon = example.kernel_size, example.bn_epsilon
        source = max(spec.in_channels for spec in variants)
        mid = max(spec.mid_channels for spec in variants)
        out = max(spec.out_channels for spec in variants)
        self.reduce = ElasticConvBNAct(source, mid, 1, epsilon)
        self.middle: ElasticConvBNAct | ElasticSplitConvBNAct
        if any(spec.rank is not None for spec in variants):
            max_rank = max(spec.rank or kernel_size * spec.mid_channels for spec in variants)
            self.middle = ElasticSplitConvBNAct(mid, mid, kernel_size, max_rank, epsilon)
        else:
            self.middle = ElasticConvBNAct(mid, mid, kernel_size, epsilon)
        self.expand = ElasticConvBNAct(mid, out, 1, epsilon)
        self.shortcut = ElasticConvBNAct(source, out, 1, epsilon) if example.project else None

    @override
    def tensors(self, spec: BottleneckSpec) -> dict[str, Tensor]:
        mid, out = spec.mid_channels, spec.out_channels
        if isinstance(self.middle, ElasticSplitConvBNAct):
            middle = self.middle.tensors(mid, mid, spec.rank)
        else:
            middle = self.middle.tensors(mid, mid)
        tensors = {
            **prefixed("reduce", self.reduce.tensors(spec.in_channels, mid)),
            **prefixed("middle", middle),
            **prefixed("expand", self.expand.tensors(mid, out)),
        }
        if self.shortcut is not None:
            tensors |= prefixed("shortcut", self.shortcut.tensors(spec.in_channels, out))
        return tensors

    @override
    def forward(self, images: Tensor, spec: BottleneckSpec) -> Tensor:
        hidden = self.reduce(images, spec.mid_channels, 1, spec.activation)
        if isinstance(self.middle, ElasticSplitConvBNAct):
            hidden = self.middle(hidden, spec.mid_channels, spec.stride, spec.activation, spec.rank)
        else:
            hidden = self.middle(hidden, spec.mid_channels, spec.stride, spec.activation)
        hidden = self.expand(hidden, spec.out_channels, 1, "none")
        if self.shortcut is not None:
            if spec.stride > 1:
                images = F.avg_pool2d(images, spec.stride, spec.stride, ceil_mode=True)
            images = self.shortcut(images, spec.out_channels, 1, "none")
        return activate(hidden + images, spec.activation)

    @override
    def sort_channels(self, trained_specs: Sequence[BottleneckSpec]) -> None:
        """Sort the channels on both sides of the middle convolution; see `sort_channels_between`.

        The channels inside a split one are put in the order of their singular values where the trained
        networks have one rank, which changes their outputs by rounding, and stay where they have several.
        """
        boundaries = {spec.mid_channels for spec in trained_specs}
        producers = self.reduce.output_tensors()
        if isinstance(self.middle, ElasticSplitConvBNAct):
            convolution, ranks = self.middle.conv, {spec.rank for spec in trained_specs}
            whole = composed_weight(convolution.first.detach(), convolution.last.detach())
            sort_channels_between(producers, [whole], boundaries, [convolution.first])
            if len(ranks) == 1:
                convolution.sort_ranks(ranks.pop())
        else:
            sort_channels_between(producers, [self.middle.conv.weight], boundaries)
        sort_channels_between(self.middle.output_tensors(), [self.expand.conv.weight], boundaries)

    @override
    def take(self, tensors: Mapping[str, Tensor], spec: BottleneckSpec) -> None:
        super().take(tensors, spec)
        if isinstance(self.middle, ElasticSplitConvBNAct):
            self.middle.conv.take({name.removeprefix("middle.conv."): t for name, t in tensors.items()})

    @override
    def input_weights(self) -> list[Tensor]:
        shortcut = [] if self.shortcut is None else [self.shortcut.conv.weight]
        return [self.reduce.conv.weight, *shortcut]

    @override
    def output_tensors(self) -> list[Tensor]:
        shortcut = [] if self.shortcut is None else self.shortcut.output_tensors()
        return [*self.expand.output_tensors(), *shortcut]


class ElasticMaxPoolLayer(ElasticLayer[MaxPoolSpec]):
    """`MaxPoolSpec`: max-pooling; no parameters."""

    @override
    def tensors(self, spec: MaxPoolSpec) -> dict[str, Tensor]:
        return {}

    @override
    def forward(self, images: Tensor, spec: MaxPoolSpec) -> Tensor:
        return F.max_pool2d(images, spec.kernel_size, spec.stride, spec.kernel_size // 2)

    @override
    def input_weights(self) -> list[Tensor]:
        return []

    @override
    def output_tensors(self) -> list[Tensor]:
        return []
