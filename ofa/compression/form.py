"""`Form`: another way to compute a convolution, by several smaller ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofa.modules.split import factoring_obstacle, with_factors

RANK_DIVISOR = 8
"""Ranks are multiples of this: engines compute so many channels at once, at least."""

SHARES = tuple(share / 8 for share in range(1, 8))
"""Shares of a convolution's multiply-accumulates that the offered ranks take."""

Ranks = tuple[int, ...]


class Form(ABC):
    """A way to compute a convolution by a sequence of smaller ones; ranks say how small."""

    name: str
    rank_names: tuple[str, ...]

    def obstacle(self, convolution: nn.Conv2d) -> str | None:
        """Return why a convolution cannot have this form; None if it can."""
        return factoring_obstacle(convolution)

    @abstractmethod
    def full_ranks(self, convolution: nn.Conv2d) -> Ranks:
        """Return the ranks of the form that computes the same function."""

    @abstractmethod
    def macs(self, convolution: nn.Conv2d, ranks: Ranks, size: tuple[int, int]) -> int:
        """Return the multiply-accumulates for one image.

        Args:
            convolution: the convolution.
            ranks: sizes of the form.
            size: height and width of its input.
        """

    @abstractmethod
    def choices(self, convolution: nn.Conv2d, size: tuple[int, int]) -> tuple[Ranks, ...]:
        """Return ranks that take fewer multiply-accumulates than the convolution, the fewest first."""

    @abstractmethod
    def layers(self, convolution: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
        """Return the smaller convolutions with undefined weights, on the device of the convolution."""

    @abstractmethod
    def weights(self, weight: Tensor, ranks: Ranks) -> Sequence[Tensor]:
        """Return the weights of the smaller convolutions for those of the convolution, in float64."""

    def problem(self, convolution: nn.Conv2d, ranks: Ranks) -> str | None:
        """Return why these are no ranks for the convolution; None if they are."""
        full = self.full_ranks(convolution)
        if len(ranks) == len(full) and all(1 <= rank <= most for rank, most in zip(ranks, full, strict=True)):
            return None
        expected = ", ".join(f"1 to {most}" for most in full)
        return f"{' and '.join(self.rank_names)} must be {expected}"

    def factors(self, convolution: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
        """Return the smaller convolutions with the weights that come closest to the convolution."""
        weight = convolution.weight.detach().to("cpu", torch.float64)
        return with_factors(self.layers(convolution, ranks), self.weights(weight, ranks), convolution.bias)


def output_size(convolution: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a convolution's output for those of its input."""
    sides = []
    for axis in (0, 1):
        padding = convolution.padding[axis]
        assert isinstance(padding, int)
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1)
        sides.append((size[axis] + 2 * padding - reach - 1) // convolution.stride[axis] + 1)
    return sides[0], sides[1]


def convolution_macs(convolution: nn.Conv2d, size: tuple[int, int]) -> int:
    """Return the multiply-accumulates of a convolution without groups for height and width of its input."""
    height, width = output_size(convolution, size)
    return height * width * convolution.weight.numel()


def multiples(values: Sequence[float], maximum: int) -> tuple[int, ...]:
    """Return the values rounded down to multiples of `RANK_DIVISOR`, at least one of them, each once."""
    rounded = {max(int(value) // RANK_DIVISOR, 1) * RANK_DIVISOR for value in values}
    return tuple(sorted(value for value in rounded if value <= maximum))
