"""`StageSpec` and `StemSpec`: the declarations of a space's stages and stem."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.common.errors import UserError

ACTIVATIONS = ("relu", "relu6", "hard_swish")


@dataclass(frozen=True)
class StageSpec:
    """One stage: blocks of equal width whose number, kernels and expand ratios are elastic.

    Attributes:
        channels: output channels, before multipliers.
        stride: stride of the first block; later blocks have stride 1.
        depths: numbers of blocks to choose from.
        kernel_sizes: kernel sizes, odd, of the depthwise or middle convolution.
        expand_ratios: mid channels as a multiple of the block's input (inverted bottlenecks) or output
            (bottlenecks).
        activation: relu, relu6 or hard_swish.
        squeeze_excite: whether blocks contain squeeze-excite.
        widths: multipliers of `channels`, one choice per stage; empty for a fixed width.
        ranks: shares of the full rank of the middle convolution of each bottleneck, which is then split into
            a vertical and a horizontal one; 1 for one that is not split. Empty where none is.
    """

    channels: int
    stride: int
    depths: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[float, ...]
    activation: str
    squeeze_excite: bool
    widths: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that every list of choices is ascending, distinct and positive."""
        optional = [name for name in ("widths", "ranks") if getattr(self, name)]
        for name in ("depths", "kernel_sizes", "expand_ratios", *optional):
            check_choices(name, getattr(self, name))
        if max(self.ranks, default=1) > 1:
            raise UserError(f"ranks are {list(self.ranks)}; expected shares of the full rank, up to 1.")
        if any(kernel % 2 == 0 for kernel in self.kernel_sizes):
            raise UserError(f"kernel_sizes are {list(self.kernel_sizes)}; expected odd numbers.")
        if self.activation not in ACTIVATIONS:
            expected = " or ".join((", ".join(ACTIVATIONS[:-1]), ACTIVATIONS[-1]))
            raise UserError(f"activation is {self.activation!r}; expected {expected}.")
        if self.channels < 1 or self.stride < 1:
            raise UserError("channels and stride of a stage must be at least 1.")
        # 3 and 3.0 are the same choice: equal spaces have equal fingerprints.
        for name in ("expand_ratios", "widths", "ranks"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))


@dataclass(frozen=True)
class StemSpec:
    """Elastic choices of a stem of several convolutions.

    Attributes:
        depths: numbers of residual layers between the first and the last convolution; may include 0.
        inner_widths: multipliers of the channels inside the stem.
        widths: multipliers of the output channels of the stem.
    """

    depths: tuple[int, ...]
    inner_widths: tuple[float, ...]
    widths: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that every list of choices is ascending and distinct."""
        check_choices("depths of the stem", self.depths, minimum=0)
        for name in ("inner_widths", "widths"):
            check_choices(f"{name} of the stem", getattr(self, name))
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))


def check_choices(name: str, choices: tuple[float, ...], minimum: float | None = None) -> None:
    """Raise the error for choices that are not distinct, ascending, and positive (or at least `minimum`)."""
    low = not choices or (min(choices) <= 0 if minimum is None else min(choices) < minimum)
    if low or list(choices) != sorted(set(choices)):
        kind = "positive numbers" if minimum is None else f"numbers from {minimum:g}"
        raise UserError(f"{name} are {list(choices)}; expected distinct {kind} in ascending order.")
