"""Settings of commands that convert a user's network: the network, its input, and what may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ofa.common.errors import UserError
from ofa.common.text_settings import OpenGroup, PathText, ShortForm
from ofa.graph.genes import ChoiceRule

DEFAULT_RESOLUTION = 224
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class ModelSettings:
    """A user's network.

    Attributes:
        name: "torchvision:NAME", "timm:NAME", or "package.module:function".
        kwargs: arguments of the function that makes it.
        weights: file of its state dict; None for the weights that the function gives.
    """

    name: str
    kwargs: Annotated[dict[str, Any], OpenGroup()] = field(default_factory=dict)
    weights: PathText | None = None

    @property
    def short_name(self) -> str:
        """Name in its library, e.g. "resnet18"; empty for a user's function."""
        library, _, name = self.name.partition(":")
        return name if library in LIBRARIES else ""


@dataclass(frozen=True)
class CostLimits:
    """Upper bounds of a network's costs; None for none.

    Attributes:
        macs_m: multiply-accumulates of one image, in millions.
        parameters_m: number of parameters, in millions.
        memory_mb: peak activation memory of one image in float32, in 10^6 bytes.
    """

    macs_m: float | None = None
    parameters_m: float | None = None
    memory_mb: float | None = None

    @property
    def by_cost(self) -> Mapping[str, float]:
        """The bounds by the name of the cost, in single operations, parameters and bytes."""
        values = {
            "macs": self.macs_m,
            "parameters": self.parameters_m,
            "peak_activation_bytes": self.memory_mb,
        }
        return {cost: value * 1e6 for cost, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """A user's network and what of it may vary; see `ofa.graph.convert.make_elastic`.

    Attributes:
        model: the network.
        input: shape of its input with the batch; None for two images in colour of `resolution`.
        resolution: side of square images in pixels; None for the largest of `resolutions`, or 224.
        widths: shares of the channels that may be kept.
        kernel_sizes: sides of kernels in pixels.
        depths: shares of the blocks of a chain that may be kept.
        resolutions: sides of the input in pixels.
        divisor: numbers of channels are multiples of it.
        min_channels: groups of fewer channels stay whole.
        exclude: patterns of modules that stay.
        include: patterns of the only modules that may vary.
        rules: choices for parts by their name.
    """

    model: Annotated[ModelSettings, ShortForm("name")]
    input: tuple[int, ...] | None = None
    resolution: int | None = None
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    depths: tuple[float, ...] = (0.5, 0.75, 1.0)
    resolutions: tuple[int, ...] = ()
    divisor: int = 8
    min_channels: int = 16
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    rules: tuple[ChoiceRule, ...] = ()

    def __post_init__(self) -> None:
        """Check the shape of the input."""
        if self.input is not None and self.resolution is not None:
            raise UserError("input and resolution are both given; expected one of them.")
        if self.input is not None and (len(self.input) < 2 or min(self.input) < 1):
            raise UserError(
                f"input is {list(self.input)}; expected the batch and the shape of an input, "
                "e.g. [2,3,224,224]."
            )
        if min((self.resolution or 1, *self.resolutions)) < 1:
            raise UserError("resolution and resolutions are sides of the input in pixels, at least 1.")

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of the input that is converted with: at least two images."""
        if self.input is not None:
            batch, *shape = self.input
            return (max(batch, 2), *shape)
        side = self.resolution or max(self.resolutions, default=DEFAULT_RESOLUTION)
        return (2, 3, side, side)
