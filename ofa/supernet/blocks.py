"""Elastic layers of every family: one per kind of `LayerSpec`, holding the largest of its variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.layer import LayerSpec
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.modules.activations import activate
from ofa.supernet.bottleneck import ElasticBottleneckLayer, ElasticMaxPoolLayer
from ofa.supernet.layer import ElasticLayer, sort_channels_between
from ofa.supernet.operators import (
    ElasticBatchNorm2d,
    ElasticConvBNAct,
    ElasticDepthwiseConv2d,
    ElasticLinear,
    ElasticSqueezeExcite,
    prefixed,
)


class ElasticConvLayer(ElasticLayer[ConvSpec]):
    """`ConvSpec`: convolution, batch norm, activation."""

    def __init__(self, variants: Sequence[ConvSpec], dropout: float) -> None:
        """Create the largest of `variants`; all have one kernel size."""
        super().__init__(variants, dropout)
        example = variants[0]
        in_channels = max(spec.in_channels for spec in variants)
        out_channels = max(spec.out_channels for spec in variants)
        epsilon = example.bn_epsilon if example.batch_norm else None
        self.layer = ElasticConvBNAct(in_channels, out_channels, example.kernel_size, epsilon)

    @override
    def tensors(self, spec: ConvSpec) -> dict[str, Tensor]:
        return self.layer.tensors(spec.in_channels, spec.out_channels)

    @override
    def forward(self, images: Tensor, spec: ConvSpec) -> Tensor:
        hidden: Tensor = self.layer(images, spec.out_channels, spec.stride, spec.activation)
        return images + hidden if spec.add_input else hidden

    @override
    def input_weights(self) -> list[Tensor]:
        return [self.layer.conv.weight]

    @override
    def output_tensors(self) -> list[Tensor]:
        return self.layer.output_tensors()


class ElasticMBConvLayer(ElasticLayer[MBConvSpec]):
    """`MBConvSpec`: inverted bottleneck with elastic kernel size and expand ratio."""

    def __init__(self, variants: Sequence[MBConvSpec], dropout: float) -> None:
        """Create the largest of `variants` and a kernel transform for each smaller kernel size."""
        super().__init__(variants, dropout)
        largest = max(variants, key=lambda spec: (spec.mid_channels, spec.kernel_size))
        kernel_sizes = tuple({spec.kernel_size for spec in variants})
        mid, epsilon = largest.mid_channels, largest.bn_epsilon
        self.expand = ElasticConvBNAct(largest.in_channels, mid, 1, epsilon) if largest.expand else None
        self.depthwise = ElasticDepthwiseConv2d(mid, kernel_sizes)
        self.depthwise_bn = ElasticBatchNorm2d(mid, epsilon)
        self.squeeze_excite = (
            ElasticSqueezeExcite(mid, largest.se_channels) if largest.squeeze_excite else None
        )
        self.project = ElasticConvBNAct(mid, largest.out_channels, 1, epsilon)

    @override
    def tensors(self, spec: MBConvSpec) -> dict[str, Tensor]:
        mid = spec.mid_channels
        tensors = {
            **prefixed("depthwise", self.depthwise.tensors(mid, spec.kernel_size)),
            **prefixed("depthwise_bn", self.depthwise_bn.tensors(mid)),
            **prefixed("project", self.project.tensors(mid, spec.out_channels)),
        }
        if self.expand is not None:
            tensors |= prefixed("expand", self.expand.tensors(spec.in_channels, mid))
        if self.squeeze_excite is not None:
            tensors |= prefixed("squeeze_excite", self.squeeze_excite.tensors(mid, spec.se_channels))
        return tensors

    @override
    def forward(self, images: Tensor, spec: MBConvSpec) -> Tensor:
        hidden = images
        if self.expand is not None:
            hidden = self.expand(hidden, spec.mid_channels, 1, spec.activation)
        hidden = self.depthwise(hidden, spec.kernel_size, spec.stride)
        hidden = activate(self.depthwise_bn(hidden), spec.activation)
        if self.squeeze_excite is not None:
            hidden = self.squeeze_excite(hidden, spec.se_channels)
        output: Tensor = self.project(hidden, spec.out_channels, 1, "none")
        return images + output if spec.residual else output

    @override
    def sort_channels(self, trained_specs: Sequence[MBConvSpec]) -> None:
        """Sort the mid and the squeeze-excite channels; see `sort_channels_between`."""
        if self.expand is None:
            return
        producers = [*self.expand.output_tensors(), self.depthwise.weight]
        producers += self.depthwise_bn.output_tensors()
        co_sorted = []
        if self.squeeze_excite is not None:
            reduce, expand = self.squeeze_excite.reduce, self.squeeze_excite.expand
            producers += expand.output_tensors()
            co_sorted.append(reduce.weight)
        mid_channels = {spec.mid_channels for spec in trained_specs}
        sort_channels_between(producers, [self.project.conv.weight], mid_channels, co_sorted)
        if self.squeeze_excite is not None:
            sort_channels_between(
                reduce.output_tensors(), [expand.weight], {spec.se_channels for spec in trained_specs}
            )

    @override
    def input_weights(self) -> list[Tensor]:
        """Return the weights that read the input; only blocks with an expansion have them."""
        assert self.expand is not None, "the input of a block without expansion is not elastic"
        return [self.expand.conv.weight]

    @override
    def output_tensors(self) -> list[Tensor]:
        return self.project.output_tensors()


class ElasticPoolLayer(ElasticLayer[PoolSpec]):
    """`PoolSpec`: global average pooling; no parameters."""

    @override
    def tensors(self, spec: PoolSpec) -> dict[str, Tensor]:
        return {}

    @override
    def forward(self, images: Tensor, spec: PoolSpec) -> Tensor:
        return images.mean((2, 3), keepdim=True)

    @override
    def input_weights(self) -> list[Tensor]:
        return []

    @override
    def output_tensors(self) -> list[Tensor]:
        return []


class ElasticLinearLayer(ElasticLayer[LinearSpec]):
    """`LinearSpec`: dropout and classifier."""

    def __init__(self, variants: Sequence[LinearSpec], dropout: float) -> None:
        """Create the classifier with the most inputs."""
        super().__init__(variants, dropout)
        largest = max(variants, key=lambda spec: spec.in_channels)
        self.dropout = dropout
        self.linear = ElasticLinear(largest.in_channels, largest.out_channels)

    @override
    def tensors(self, spec: LinearSpec) -> dict[str, Tensor]:
        return prefixed("linear", self.linear.tensors(spec.in_channels))

    @override
    def forward(self, images: Tensor, spec: LinearSpec) -> Tensor:
        """Map images (n, in_features, 1, 1) to logits (n, out_features)."""
        features = F.dropout(images.flatten(1), self.dropout, self.training)
        logits: Tensor = self.linear(features)
        return logits

    @override
    def input_weights(self) -> list[Tensor]:
        return [self.linear.weight]

    @override
    def output_tensors(self) -> list[Tensor]:
        return [self.linear.weight, self.linear.bias]


ELASTIC_LAYERS: dict[type[LayerSpec], type[ElasticLayer[Any]]] = {
    ConvSpec: ElasticConvLayer,
    MBConvSpec: ElasticMBConvLayer,
    BottleneckSpec: ElasticBottleneckLayer,
    MaxPoolSpec: ElasticMaxPoolLayer,
    PoolSpec: ElasticPoolLayer,
    LinearSpec: ElasticLinearLayer,
}


def elastic_layer(variants: Sequence[LayerSpec], dropout: float) -> ElasticLayer[Any]:
    """Return the elastic layer that computes all `variants` of one slot."""
    kind = type(variants[0])
    assert kind in ELASTIC_LAYERS, f"no elastic layer for {kind.__name__}"
    return ELASTIC_LAYERS[kind](variants, dropout)
