"""`Split`: a convolution as a vertical and a horizontal one, by a singular value decomposition."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from ofa.compression.form import SHARES, Form, Ranks, convolution_macs, multiples, output_size
from ofa.modules.split import full_rank, split_layers, split_weights


class Split(Form):
    """A kernel of k x l as k x 1 from the input to `rank` channels, and 1 x l from there to the output.

    For its weights see `ofa.modules.split.split_weights`.
    """

    name = "split"
    rank_names = ("rank",)

    @override
    def full_ranks(self, convolution: nn.Conv2d) -> Ranks:
        return (full_rank(convolution.weight),)

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
        return split_layers(convolution, *ranks)

    @override
    def weights(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        return split_weights(weight, *ranks)
