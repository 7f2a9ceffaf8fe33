"""`Penni` and `Escalate`: kernels that are combinations of a few basis kernels, in two orders."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.compression.form import Form, Ranks, convolution_macs, output_size
from ofa.modules.split import smaller_convolution


class BasisForm(Form):
    """Kernels k x l that are combinations of `rank` basis kernels, which all kernels of a layer share.

    The basis is that of the best approximation in least squares (Li et al. 2020, "PENNI"): the first right
    singular vectors of the matrix whose rows are the kernels, without centring. The coefficients carry the
    scale.
    """

    rank_names = ("rank",)
    coefficient_index: int
    """Position of the 1x1 convolution with the coefficients."""

    @override
    def full_ranks(self, convolution: nn.Conv2d) -> Ranks:
        height, width = convolution.kernel_size
        return (height * width,)

    @override
    def choices(self, convolution: nn.Conv2d, size: tuple[int, int]) -> tuple[Ranks, ...]:
        full = convolution_macs(convolution, size)
        ranks = range(1, self.full_ranks(convolution)[0])
        return tuple((rank,) for rank in ranks if self.macs(convolution, (rank,), size) < full)

    @override
    def weights(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        return self.arranged(*basis_and_coefficients(weight, ranks[0]))

    @abstractmethod
    def arranged(self, basis: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of both convolutions.

        Args:
            basis: basis kernels (rank, height, width).
            coefficients: coefficients (out, in, rank).
        """


class Penni(BasisForm):
    """Each input convolved with every basis kernel, then a 1x1 convolution with the coefficients."""

    name = "penni"
    coefficient_index = 1

    @override
    def macs(self, convolution: nn.Conv2d, ranks: Ranks, size: tuple[int, int]) -> int:
        (rank,), (height, width) = ranks, output_size(convolution, size)
        area = self.full_ranks(convolution)[0]
        return height * width * rank * convolution.in_channels * (area + convolution.out_channels)

    @override
    def layers(self, convolution: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
        in_channels, out_channels = convolution.in_channels, convolution.out_channels
        inner = in_channels * ranks[0]
        return nn.Sequential(
            smaller_convolution(convolution, in_channels, inner, (0, 1), groups=in_channels),
            smaller_convolution(convolution, inner, out_channels, (), bias=convolution.bias is not None),
        )

    @override
    def arranged(self, basis: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        in_channels = coefficients.shape[1]
        return basis[:, None].repeat(in_channels, 1, 1, 1), coefficients.flatten(1)[:, :, None, None]


class Escalate(BasisForm):
    """A 1x1 convolution with the coefficients, then one basis kernel for each of its outputs, summed.

    The order of Li et al. 2021 ("ESCALATE"), whose 1x1 convolution works at the size of the input.
    """

    name = "escalate"
    coefficient_index = 0

    @override
    def macs(self, convolution: nn.Conv2d, ranks: Ranks, size: tuple[int, int]) -> int:
        (rank,), (height, width) = ranks, output_size(convolution, size)
        area = self.full_ranks(convolution)[0]
        inner = rank * convolution.out_channels
        return inner * (convolution.in_channels * size[0] * size[1] + area * height * width)

    @override
    def layers(self, convolution: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
        in_channels, out_channels = convolution.in_channels, convolution.out_channels
        inner, has_bias = out_channels * ranks[0], convolution.bias is not None
        return nn.Sequential(
            smaller_convolution(convolution, in_channels, inner, ()),
            smaller_convolution(convolution, inner, out_channels, (0, 1), groups=out_channels, bias=has_bias),
        )

    @override
    def arranged(self, basis: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        inner = coefficients.transpose(1, 2).flatten(0, 1)
        return inner[:, :, None, None], basis[None].repeat(len(coefficients), 1, 1, 1)


def basis_and_coefficients(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return basis kernels (rank, h, w), orthonormal, and coefficients (out, in, rank) in float64.

    Args:
        weight: weight of a convolution (out, in, h, w).
        rank: number of basis kernels, at most h * w.
    """
    kernels = weight.detach().to("cpu", torch.float64).flatten(2)
    # The Gram matrix is small: its vectors are the right singular vectors of all kernels.
    rows = kernels.flatten(0, 1)
    vectors = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :rank].T
    return vectors.reshape(rank, *weight.shape[2:]), kernels @ vectors.T
