"""Elastic layers: one per kind of `LayerSpec`, holding the largest of its variants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import singledispatch
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.elastic.operators import (
    ElasticBatchNorm2d,
    ElasticConvBNAct,
    ElasticDepthwiseConv2d,
    ElasticLinear,
    ElasticSqueezeExcite,
    prefixed,
)
from ofa.functional import activate
from ofa.layers import ConvSpec, LayerSpec, LinearSpec, MBConvSpec, PoolSpec


class ElasticLayer(nn.Module, ABC):
    """A layer that computes any of its variants; which one is an argument of each call."""

    @abstractmethod
    def tensors(self, spec: Any) -> dict[str, Tensor]:
        """Return the state of the static layer of `spec`, as views or transforms of the parameters."""

    @abstractmethod
    def forward(self, images: Tensor, spec: Any) -> Tensor:
        """Compute the variant `spec` on images (n, in_channels, h, w)."""

    def sort_channels(self, trained: Sequence[Any]) -> None:
        """Reorder inner channels by importance without changing any variant in `trained`."""


class ElasticConvLayer(ElasticLayer):
    """`ConvSpec`: convolution, batch norm, activation."""

    def __init__(self, variants: Sequence[ConvSpec]) -> None:
        """Create the largest of `variants`."""
        super().__init__()
        largest = max(variants, key=lambda spec: (spec.in_channels, spec.out_channels, spec.kernel_size))
        epsilon = largest.bn_epsilon if largest.batch_norm else None
        self.layer = ElasticConvBNAct(largest.in_channels, largest.out_channels, largest.kernel_size, epsilon)

    def tensors(self, spec: ConvSpec) -> dict[str, Tensor]:
        """See `ElasticLayer.tensors`."""
        return self.layer.tensors(spec.in_channels, spec.out_channels)

    def forward(self, images: Tensor, spec: ConvSpec) -> Tensor:
        """See `ElasticLayer.forward`."""
        return torch.as_tensor(self.layer(images, spec.out_channels, spec.stride, spec.activation))


class ElasticMBConvLayer(ElasticLayer):
    """`MBConvSpec`: inverted bottleneck with elastic kernel size and expand ratio."""

    def __init__(self, variants: Sequence[MBConvSpec]) -> None:
        """Create the largest of `variants` and a kernel transform for each smaller kernel size."""
        super().__init__()
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

    def tensors(self, spec: MBConvSpec) -> dict[str, Tensor]:
        """See `ElasticLayer.tensors`."""
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

    def forward(self, images: Tensor, spec: MBConvSpec) -> Tensor:
        """See `ElasticLayer.forward`."""
        hidden = images
        if self.expand is not None:
            hidden = self.expand(hidden, spec.mid_channels, 1, spec.activation)
        hidden = self.depthwise(hidden, spec.kernel_size, spec.stride)
        hidden = activate(self.depthwise_bn(hidden), spec.activation)
        if self.squeeze_excite is not None:
            hidden = self.squeeze_excite(hidden, spec.se_channels)
        hidden = self.project(hidden, spec.out_channels, 1, "none")
        return images + hidden if spec.residual else torch.as_tensor(hidden)

    @torch.no_grad()
    def sort_channels(self, trained: Sequence[MBConvSpec]) -> None:
        """Sort mid (and squeeze-excite) channels by the L1 norm of the weights that consume them.

        Channels only move within the segments between the widths of `trained`, so that each of these
        networks keeps its function (Cai et al. 2020, sec. 3.3).
        """
        if self.expand is None:
            return
        importance = self.project.conv.weight.abs().sum((0, 2, 3))
        order = segment_order(importance, {spec.mid_channels for spec in trained})
        expand_bn = self.expand.bn
        assert expand_bn is not None
        outputs: list[Tensor] = [self.expand.conv.weight, self.depthwise.weight]
        for bn in (expand_bn, self.depthwise_bn):
            outputs += bn.tensors(len(order)).values()
        inputs: list[Tensor] = [self.project.conv.weight]
        if self.squeeze_excite is not None:
            outputs += self.squeeze_excite.expand.tensors(len(importance), len(importance)).values()
            inputs.append(self.squeeze_excite.reduce.weight)
        _permute(outputs, inputs, order)
        if self.squeeze_excite is not None:
            reduce, expand = self.squeeze_excite.reduce, self.squeeze_excite.expand
            importance = expand.weight.abs().sum((0, 2, 3))
            order = segment_order(importance, {spec.se_channels for spec in trained})
            assert reduce.bias is not None
            _permute([reduce.weight, reduce.bias], [expand.weight], order)


class ElasticPoolLayer(ElasticLayer):
    """`PoolSpec`: global average pooling; no parameters."""

    def tensors(self, spec: PoolSpec) -> dict[str, Tensor]:
        """See `ElasticLayer.tensors`."""
        return {}

    def forward(self, images: Tensor, spec: PoolSpec) -> Tensor:
        """See `ElasticLayer.forward`."""
        return images.mean((2, 3), keepdim=True)


class ElasticLinearLayer(ElasticLayer):
    """`LinearSpec`: dropout and classifier."""

    def __init__(self, variants: Sequence[LinearSpec], dropout: float) -> None:
        """Create the classifier with the most inputs."""
        super().__init__()
        largest = max(variants, key=lambda spec: spec.in_features)
        self.dropout = dropout
        self.linear = ElasticLinear(largest.in_features, largest.out_features)

    def tensors(self, spec: LinearSpec) -> dict[str, Tensor]:
        """See `ElasticLayer.tensors`."""
        return prefixed("linear", self.linear.tensors(spec.in_features))

    def forward(self, images: Tensor, spec: LinearSpec) -> Tensor:
        """Map images (n, in_features, 1, 1) to logits (n, out_features)."""
        features = F.dropout(images.flatten(1), self.dropout, self.training)
        return torch.as_tensor(self.linear(features))


def segment_order(importance: Tensor, boundaries: set[int]) -> Tensor:
    """Return the channels in descending importance within each segment between `boundaries`."""
    edges = [0, *sorted(b for b in boundaries if b < len(importance)), len(importance)]
    parts = [
        start + torch.argsort(importance[start:stop], descending=True, stable=True)
        for start, stop in pairwise(edges)
    ]
    return torch.cat(parts)


def _permute(outputs: Sequence[Tensor], inputs: Sequence[Tensor], order: Tensor) -> None:
    for tensor in outputs:
        tensor.copy_(tensor[order].clone())
    for tensor in inputs:
        tensor.copy_(tensor[:, order].clone())


def elastic_layer(variants: Sequence[LayerSpec], dropout: float) -> ElasticLayer:
    """Return the elastic layer that computes all `variants` of one slot."""
    return _build(variants[0], variants, dropout)


@singledispatch
def _build(example: LayerSpec, variants: Sequence[Any], dropout: float) -> ElasticLayer:
    raise NotImplementedError(f"no elastic layer for {type(example).__name__}")


def _register(kind: type[LayerSpec], make: Callable[[Sequence[Any], float], ElasticLayer]) -> None:
    _build.register(kind, lambda example, variants, dropout: make(variants, dropout))


_register(ConvSpec, lambda variants, dropout: ElasticConvLayer(variants))
_register(MBConvSpec, lambda variants, dropout: ElasticMBConvLayer(variants))
_register(PoolSpec, lambda variants, dropout: ElasticPoolLayer())
_register(LinearSpec, ElasticLinearLayer)
