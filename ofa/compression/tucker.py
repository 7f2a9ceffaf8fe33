"""`Tucker`: a convolution between fewer channels, with a 1x1 convolution before and after it."""

from __future__ import annotations

import math

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
)
from ofa.modules.split import smaller_convolution

_NUM_ROUNDS = 10


class Tucker(Form):
    """1x1 from the input to `in_rank` channels, the kernel from there to `out_rank`, 1x1 to the output.

    The weights are a Tucker decomposition along the channels (Kim et al., 2016): the singular vectors of both
    unfoldings of the kernel, refined in turn (higher-order orthogonal iteration). The scale of the core is
    spread over the three factors.
    """

    name = "tucker"
    rank_names = ("in_rank", "out_rank")

    @override
    def full_ranks(self, convolution: nn.Conv2d) -> Ranks:
        return convolution.in_channels, convolution.out_channels

    @override
    def macs(self, convolution: nn.Conv2d, ranks: Ranks, size: tuple[int, int]) -> int:
        in_rank, out_rank = ranks
        height, width = output_size(convolution, size)
        area = convolution.kernel_size[0] * convolution.kernel_size[1]
        core = in_rank * out_rank * area + out_rank * convolution.out_channels
        return convolution.in_channels * in_rank * size[0] * size[1] + core * height * width

    @override
    def choices(self, convolution: nn.Conv2d, size: tuple[int, int]) -> tuple[Ranks, ...]:
        full = convolution_macs(convolution, size)
        choices: dict[Ranks, None] = {}
        for share in SHARES:
            ranks = self._ranks(convolution, size, share * full)
            if ranks is not None and self.macs(convolution, ranks, size) < full:
                choices[ranks] = None
        return tuple(sorted(choices, key=lambda ranks: self.macs(convolution, ranks, size)))

    def _ranks(self, convolution: nn.Conv2d, size: tuple[int, int], macs: float) -> Ranks | None:
        """Return the largest ranks, both the same part of the channels, within the multiply-accumulates."""
        found = None
        for part in (step / 64 for step in range(1, 65)):
            ranks = tuple(multiples([part * channels], channels) for channels in self.full_ranks(convolution))
            if not all(ranks):
                return None
            pair = ranks[0][0], ranks[1][0]
            if self.macs(convolution, pair, size) <= macs:
                found = pair
        return found

    @override
    def layers(self, convolution: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
        in_rank, out_rank = ranks
        has_bias = convolution.bias is not None
        return nn.Sequential(
            smaller_convolution(convolution, convolution.in_channels, in_rank, ()),
            smaller_convolution(convolution, in_rank, out_rank, (0, 1)),
            smaller_convolution(convolution, out_rank, convolution.out_channels, (), bias=has_bias),
        )

    @override
    def weights(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        in_rank, out_rank = ranks
        of_inputs, of_outputs = _leading(weight, 1, in_rank), _leading(weight, 0, out_rank)
        for _ in range(_NUM_ROUNDS if in_rank < weight.shape[1] or out_rank < weight.shape[0] else 0):
            of_outputs = _leading(torch.einsum("ocij,cr->orij", weight, of_inputs), 0, out_rank)
            of_inputs = _leading(torch.einsum("ocij,os->scij", weight, of_outputs), 1, in_rank)
        core = torch.einsum("ocij,os,cr->srij", weight, of_outputs, of_inputs)
        scale = math.pow(max(float(torch.linalg.matrix_norm(core.flatten(1), 2)), 1e-300), 1 / 3)
        return (
            scale * of_inputs.T[:, :, None, None],
            core / scale**2,
            scale * of_outputs[:, :, None, None],
        )


def _leading(weight: Tensor, axis: int, count: int) -> Tensor:
    """Return the first left singular vectors of the unfolding along an axis, as columns."""
    unfolded = weight.movedim(axis, 0).flatten(1)
    # The Gram matrix is small: its vectors are those of the unfolding.
    vectors: Tensor = torch.linalg.eigh(unfolded @ unfolded.T).eigenvectors
    return vectors.flip(1)[:, :count]
