"""What the steps of a compression are called, and the pattern of zeros: settings that need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.common.errors import UserError

FORM_NAMES = ("split", "tucker")
"""Names of the forms of convolutions; see `ofa.compression.changes.FORMS`."""

BLOCKS = (4, 8, 16)

WEIGHT_BITS = (4, 8)
"""Bits of a weight that a network can be trained for."""


@dataclass(frozen=True)
class SparsePattern:
    """How many weights are zero, and where.

    Attributes:
        share: share of zeros, below 1.
        block: number of consecutive input channels of which `share` is zero, as 2 of 4; None for zeros
            anywhere in a layer.
    """

    share: float = 0.5
    block: int | None = 4

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = []
        if not 0 < self.share < 1:
            problems.append(f"share is {self.share:g}; expected a share of zeros between 0 and 1.")
        if self.block is not None and self.block not in BLOCKS:
            problems.append(
                f"block is {self.block}; expected {', '.join(map(str, BLOCKS))}, or null for zeros anywhere."
            )
        elif self.block is not None and self.share * self.block % 1:
            problems.append(f"{self.share:g} of {self.block} weights are no whole number.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def text(self) -> str:
        """The pattern for users, e.g. "2 of 4 weights are zero"."""
        if self.block is None:
            return f"{100 * self.share:g} % of the weights are zero"
        return f"{self.share * self.block:g} of {self.block} weights are zero"
