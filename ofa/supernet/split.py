"""Elastic convolution that is split into a vertical and a horizontal one, or not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.modules.activations import activate
from ofa.modules.split import composed_weight, sort_by_singular_value, split_weights
from ofa.supernet.operators import ElasticBatchNorm2d, prefixed
from ofa.supernet.slicing import leading


class ElasticSplitConv2d(nn.Module):
    """Dense convolution as a pair with its first channels between the two, or as the kernel of all of them.

    The pair k x 1 and 1 x k holds all weights (Jaderberg et al. 2014). A sub-network that splits the
    convolution takes the first channels between the two; one that does not takes the kernel that the pair
    computes with all of them, so both share their weights.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, max_rank: int) -> None:
        """Create parameters of the largest size; the kernel varies as by He initialisation, fan-out."""
        super().__init__()
        self.first = nn.Parameter(torch.empty(max_rank, in_channels, kernel_size, 1))
        self.last = nn.Parameter(torch.empty(out_channels, max_rank, 1, kernel_size))
        # An entry of the kernel is a sum of `max_rank` products.
        std = (2 / (out_channels * kernel_size**2) / max_rank) ** 0.25
        nn.init.normal_(self.first, std=std)
        nn.init.normal_(self.last, std=std)

    def tensors(self, in_channels: int, out_channels: int, rank: int | None) -> dict[str, Tensor]:
        """Return weights (rank, in, k, 1) and (out, rank, 1, k); (out, in, k, k) without a rank."""
        first, last = leading(self.first, in_channels, 1), leading(self.last, out_channels)
        if rank is None:
            return {"weight": composed_weight(first, last)}
        return {"0.weight": leading(first, rank), "1.weight": leading(last, rank, 1)}

    def forward(self, images: Tensor, out_channels: int, stride: int, rank: int | None) -> Tensor:
        """Convolve images (n, in, h, w) to (n, out, h', w') with 'same' padding."""
        tensors, padding = self.tensors(images.shape[1], out_channels, rank), self.first.shape[2] // 2
        if rank is None:
            return F.conv2d(images, tensors["weight"], None, stride, padding)
        hidden = F.conv2d(images, tensors["0.weight"], None, (stride, 1), (padding, 0))
        return F.conv2d(hidden, tensors["1.weight"], None, (1, stride), (0, padding))

    @torch.no_grad()
    def take(self, tensors: dict[str, Tensor]) -> None:
        """Copy the tensors of the largest network: a pair, or the kernel that is then split."""
        weight = tensors.get("weight")
        if weight is not None:
            pair = split_weights(weight.detach().cpu().double(), len(self.first))
        else:
            pair = tensors["0.weight"], tensors["1.weight"]
        for own, factor in zip((self.first, self.last), pair, strict=True):
            own.copy_(factor)

    def sort_ranks(self, rank: int | None) -> None:
        """Put the channels between the two in the order of their singular values, in place.

        Args:
            rank: number of channels that the trained networks use; None for the whole kernel.
        """
        sort_by_singular_value(self.first, self.last, len(self.first) if rank is None else rank)


class ElasticSplitConvBNAct(nn.Module):
    """Elastic convolution that may be split, batch norm and activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, max_rank: int, bn_epsilon: float
    ) -> None:
        """Create the convolution and the batch norm."""
        super().__init__()
        self.conv = ElasticSplitConv2d(in_channels, out_channels, kernel_size, max_rank)
        self.bn = ElasticBatchNorm2d(out_channels, bn_epsilon)

    def tensors(self, in_channels: int, out_channels: int, rank: int | None) -> dict[str, Tensor]:
        """Return the tensors of both parts under the names `conv.*` and `bn.*`."""
        conv = prefixed("conv", self.conv.tensors(in_channels, out_channels, rank))
        return {**conv, **prefixed("bn", self.bn.tensors(out_channels))}

    def output_tensors(self) -> list[Tensor]:
        """Return all tensors whose dimension 0 runs over the output channels."""
        return [self.conv.last, *self.bn.output_tensors()]

    def forward(
        self, images: Tensor, out_channels: int, stride: int, activation: str, rank: int | None
    ) -> Tensor:
        """Map images (n, in, h, w) to (n, out, h', w')."""
        return activate(self.bn(self.conv(images, out_channels, stride, rank)), activation)
