"""`ElasticLayer`: the interface of elastic layers, and reordering of channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ofa.architecture.layer import LayerSpec

Spec = TypeVar("Spec", bound=LayerSpec)


class ElasticLayer(nn.Module, ABC, Generic[Spec]):
    """A layer that computes any of its variants; which one is an argument of each call."""

    def __init__(self, variants: Sequence[Spec], dropout: float) -> None:
        """Create no parameters; layers with parameters create those of the largest of `variants`.

        Args:
            variants: all layers that the position can hold, at least one.
            dropout: dropout probability, used by the classifier.
        """
        super().__init__()

    @abstractmethod
    def tensors(self, spec: Spec) -> dict[str, Tensor]:
        """Return the state of the static layer of `spec`, as views or transforms of the parameters."""

    @abstractmethod
    def forward(self, images: Tensor, spec: Spec) -> Tensor:
        """Compute the variant `spec` on images (n, in_channels, h, w)."""

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor], spec: Spec) -> None:
        """Copy the state of the static layer of `spec`, the largest variant; transforms stay as they are."""
        for name, own in self.tensors(spec).items():
            own.copy_(tensors[name])

    def sort_channels(self, trained_specs: Sequence[Spec]) -> None:
        """Reorder inner channels by importance without changing any variant in `trained_specs`."""

    @abstractmethod
    def input_weights(self) -> list[Tensor]:
        """Return the weights that consume the layer's input; dimension 1 runs over its channels."""

    @abstractmethod
    def output_tensors(self) -> list[Tensor]:
        """Return the tensors that make the layer's output; dimension 0 runs over its channels."""


def channel_importance(consumers: Sequence[Tensor]) -> Tensor:
    """Return the L1 norm per channel of the weights (out, channels, ...) that consume the channels."""
    return torch.stack([weight.abs().transpose(0, 1).flatten(1).sum(1) for weight in consumers]).sum(0)


def segment_order(importance: Tensor, boundaries: Collection[int]) -> Tensor:
    """Return the channels in descending importance within each segment between `boundaries`."""
    edges = [0, *sorted(b for b in set(boundaries) if b < len(importance)), len(importance)]
    parts = [
        start + torch.argsort(importance[start:stop], descending=True, stable=True)
        for start, stop in pairwise(edges)
    ]
    return torch.cat(parts)


@torch.no_grad()
def sort_channels_between(
    producers: Sequence[Tensor],
    consumers: Sequence[Tensor],
    boundaries: Collection[int],
    co_sorted: Sequence[Tensor] = (),
) -> None:
    """Sort the channels between layers by the L1 norm of the weights that consume them, in place.

    Channels only move within the segments between `boundaries`: a network that uses the first b of them,
    b in `boundaries`, keeps its function (Cai et al. 2020, sec. 3.3).

    Args:
        producers: tensors whose dimension 0 runs over the channels.
        consumers: weights whose dimension 1 runs over the channels.
        boundaries: channel counts of the networks whose function must not change.
        co_sorted: further weights of the same kind that are reordered but do not affect the order.
    """
    order = segment_order(channel_importance(consumers), boundaries)
    for tensor in producers:
        tensor.copy_(tensor[order].clone())
    for tensor in (*consumers, *co_sorted):
        tensor.copy_(tensor[:, order].clone())
