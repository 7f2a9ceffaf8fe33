"""Settings of commands that convert a user's network: the network, what may vary, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from ofa.common.errors import UserError
from ofa.common.text_settings import OpenGroup, PathText
from ofa.graph.genes import ChoiceRule

MIN_FITTED_IMAGES = 8
"""Images that the weights of layers are fitted to, at least; see `ofa.graph.reconstruction`."""

LIBRARIES = ("torchvision", "timm", "ofa")


@dataclass(frozen=True)
class ModelSettings:
    """A user's network, and what of it may vary; see `ofa.graph.convert.make_elastic`.

    Attributes:
        name: "torchvision:NAME", "timm:NAME", or "package.module:function"; None for no network.
        kwargs: arguments of the function that makes it.
        weights: file of its state dict; None for the weights that the function gives.
        widths: shares of the channels that may be kept.
        kernel_sizes: sides of kernels in pixels.
        depths: shares of the blocks of a chain that may be kept.
        resolutions: sides of the input in pixels.
        divisor: numbers of channels are multiples of it.
        min_channels: groups of fewer channels stay whole.
        exclude: patterns of modules that stay.
        include: patterns of the only modules that may vary.
        rules: choices for parts by their name.
        min_pointwise_width: smallest share of the channels that only 1x1 convolutions make and read, in
            networks of mostly depthwise convolutions.
        ranks: shares of the full rank that split convolutions may have; none splits no convolution.
    """

    name: str | None = None
    kwargs: Annotated[dict[str, Any], OpenGroup()] = field(default_factory=dict)
    weights: PathText | None = None
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    depths: tuple[float, ...] = (0.5, 0.75, 1.0)
    resolutions: tuple[int, ...] = ()
    divisor: int = 8
    min_channels: int = 16
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    rules: tuple[ChoiceRule, ...] = ()
    min_pointwise_width: float = 0.0
    ranks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the resolutions, and that nothing else is set where there is no network."""
        if min(self.resolutions, default=1) < 1:
            raise UserError("resolutions are sides of the input in pixels, at least 1.")
        if self.name is None:
            defaults = {f.name: f.default for f in fields(self) if f.name != "kwargs"} | {"kwargs": {}}
            given = [name for name, default in defaults.items() if getattr(self, name) != default]
            if given:
                raise UserError(
                    f"{', '.join(given)} need the name of a network. Give it on the command line, e.g. "
                    "model=torchvision:resnet18."
                )

    def check_given(self) -> None:
        """Raise the error where there is no network."""
        if self.name is None:
            raise UserError(
                "model is missing: torchvision:NAME, timm:NAME, or package.module:function. Give it on the "
                "command line."
            )

    def check_not_split(self) -> None:
        """Raise the error where convolutions are to be split, for commands that make one network smaller."""
        if self.ranks or any(rule.ranks for rule in self.rules):
            raise UserError(
                "model.ranks split convolutions for a supernet (ofa train, ofa find); leave them empty here. "
                "ofa compress steps=[split] splits those of one network."
            )

    @property
    def has_weights(self) -> bool:
        """Whether the network may be trained: by a file of weights, or by a function that may give them."""
        return self.name is not None and (self.weights is not None or not self.short_name)

    @property
    def short_name(self) -> str:
        """Name in its library, e.g. "resnet18"; empty for a user's function."""
        library, _, name = (self.name or "").partition(":")
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
