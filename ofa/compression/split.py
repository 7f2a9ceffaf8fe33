"""`Split`: a convolution as a vertical and a horizontal one, by a singular value decomposition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.compression.form import (
    SHARES,
    Form,
    Ranks,
    convolution_macs,
    multiples,
    output_size,
    smaller_convolution,
)


class Split(Form):
    """A kernel of k x l as k x 1 from the input to `rank` channels, and 1 x l from there to the output.

    The weights are the best ones of this form in the least squares of the kernel (Jaderberg et al., 2014):
    the matrix whose rows are the inputs with the vertical axis, and whose columns are the outputs with the
    horizontal axis, is cut to its largest singular values. Both factors carry the square root of them.
    """

    name = "split"
    rank_names = ("rank",)

    @override
    def full_ranks(self, convolution: nn.Conv2d) -> Ranks:
        out_channels, in_channels, height, width = convolution.weight.shape
        return (min(in_channels * height, out_channels * width),)

    @override
    def macs(self, convolution: nn.Conv2d, ranks: Ranks, size: tuple[int, int]) -> int:
        out_channels, in_channels, kernel_height, kernel_width = convolution.weight.shape
        height, width = output_size(convolution, size)
        first = in_channels * kernel_height * height * size[1]
        return ranks[0] * (first + out_channels * kernel_width * height * width)

    @override
    def choices(self, convolution: nn.Conv2d, size: tuple[int, int]) -> tuple[Ranks, ...]:
        macs = convolution_macs(convolution, size)
        per_rank = self.macs(convolution, (1,), size)
        (full,) = self.full_ranks(convolution)
        ranks = multiples([share * macs / per_rank for share in SHARES], full)
        return tuple((rank,) for rank in ranks if rank * per_rank < macs)

    @override
    def layers(self, convolution: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
        (rank,) = ranks
        has_bias = convolution.bias is not None
        return nn.Sequential(
            smaller_convolution(convolution, convolution.in_channels, rank, (0,)),
            smaller_convolution(convolution, rank, convolution.out_channels, (1,), bias=has_bias),
        )

    @override
    def weights(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        (rank,) = ranks
        out_channels, in_channels, height, width = weight.shape
        matrix = weight.permute(1, 2, 0, 3).reshape(in_channels * height, out_channels * width)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        scale = values[:rank].sqrt()
        first = (left[:, :rank] * scale).T.reshape(rank, in_channels, height, 1)
        last = (scale[:, None] * right[:rank]).reshape(rank, out_channels, width).permute(1, 0, 2)
        return first, last[:, :, None, :]
