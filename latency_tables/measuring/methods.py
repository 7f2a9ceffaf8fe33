"""`LayerMethod`: how the entry of one layer is measured.

A method converts a layer to a `Workload`, which an engine can time, and names reference workloads. The entry
is the workload's latency minus a weighted sum of its references' latencies; layers share references.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import nn
from typing_extensions import override

from latency_tables.table import device
from ofa.architecture.layer import LayerSpec
from ofa.modules.static import conv_bn_act, static_layer

NETWORK_VISITS_PER_ROUND = 3
"""Networks get more visits than layers, because the noise of layers averages out in their sum."""

COLD_VISIT_RUNS = 4
"""Runs of a visit without warm-up, the cold one first."""

Shape = tuple[int, int, int]
"""Channels, height and width of an activation of one image."""


@dataclass(frozen=True)
class Workload:
    """A module to time.

    Attributes:
        key: name of the workload, unique among the workloads of a table.
        build: creates the module; called just before it is timed.
        image_shape: shape of one input without the batch dimension, e.g. (channels, height, width).
        visits_per_round: number of visits in each round.
        starts_cold: whether a visit has no warm-up but `COLD_VISIT_RUNS` runs: other programs ran since the
            last visit, so in the first run the weights come from further away than in the others.
    """

    key: str
    build: Callable[[], nn.Module]
    image_shape: tuple[int, ...]
    visits_per_round: int = 1
    starts_cold: bool = False


class LayerMethod(Protocol):
    """Conversion of layers to workloads; measurements of different methods never share a table."""

    @property
    def name(self) -> str:
        """Short text that is stored in the table."""
        ...

    def workload(self, spec: LayerSpec) -> Workload:
        """Return the workload of a layer; its key is the layer's key."""
        ...

    def references(self, spec: LayerSpec) -> tuple[tuple[Workload, float], ...]:
        """Return the workloads whose latencies are subtracted from the layer's, each with its weight.

        References with equal keys are the same workload.
        """
        ...


@dataclass(frozen=True)
class IsolatedLayers(LayerMethod):
    """Each layer alone with random weights and input.

    A call of the engine has a fixed cost (for ONNX Runtime as much as a small layer), which a network pays
    once and not per layer. The reference measures it by passing a single number through.
    """

    name: str = "isolated layers less call overhead"

    @override
    def workload(self, spec: LayerSpec) -> Workload:
        return Workload(spec.key, partial(static_layer, spec), _input_shape(spec))

    @override
    def references(self, spec: LayerSpec) -> tuple[tuple[Workload, float], ...]:
        return ((Workload("baseline", nn.Identity, (1, 1, 1)), 1.0),)


@dataclass(frozen=True)
class SandwichedLayers(LayerMethod):
    """Each layer X between slices: latency(W X N) minus half of latency(W N) at either end.

    Engines use their own memory layouts for feature maps. A layer alone also pays for the conversion from and
    to the plain layout, which costs more than some layers; inside a network, as between the slices, it does
    not. W is a 1x1 convolution from a few channels to those of the map, N one back to a few. Slices that kept
    the channels would cost many times as much as the layers on wide maps, and add their noise. The latency
    difference of W and N at a map is added by the layer before it and subtracted by the layer after it.

    In a network, an image also comes in the plain layout, so nothing precedes its layer; and nothing follows
    a classifier, whose output is not a feature map. The remaining call overhead in these two entries is the
    same for all networks and becomes part of the calibration's offset.
    """

    name: str = "layers between narrow 1x1 convolutions less these"

    @override
    def workload(self, spec: LayerSpec) -> Workload:
        slice_shape, _ = _ends(spec)
        shape = _input_shape(spec) if slice_shape is None else (_SLICE_CHANNELS, *slice_shape[1:])
        return Workload(spec.key, partial(_sandwich, spec), shape)

    @override
    def references(self, spec: LayerSpec) -> tuple[tuple[Workload, float], ...]:
        return tuple((_slices(shape), 0.5) for shape in _ends(spec) if shape is not None)


METHODS: dict[str, LayerMethod] = {"sandwich": SandwichedLayers(), "isolated": IsolatedLayers()}
"""Methods by their names in device descriptions."""

_SLICE_CHANNELS = 16
"""Channels of the maps before and after a sandwich: as many as the widest vector instructions hold."""
_IMAGE_CHANNELS = 4
"""Inputs with more channels than this are feature maps."""


def _input_shape(spec: LayerSpec) -> Shape:
    return spec.in_channels, spec.input_size, spec.input_size


@lru_cache(maxsize=4096)
def _output_shape(spec: LayerSpec) -> Shape | None:
    """Return the shape of the layer's output; None if it is not a feature map."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        shape = static_layer(spec).eval()(torch.empty(1, *_input_shape(spec))).shape
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 else None


def _ends(spec: LayerSpec) -> tuple[Shape | None, Shape | None]:
    """Return the shapes at which a slice precedes and follows the layer; None without a slice."""
    input_shape = _input_shape(spec) if spec.in_channels > _IMAGE_CHANNELS else None
    return input_shape, _output_shape(spec)


def _slice(in_channels: int, out_channels: int) -> nn.Module:
    return conv_bn_act(in_channels, out_channels, 1, 1, "none", None)


def _sandwich(spec: LayerSpec) -> nn.Module:
    input_shape, output_shape = _ends(spec)
    head = [] if input_shape is None else [_slice(_SLICE_CHANNELS, input_shape[0])]
    tail = [] if output_shape is None else [_slice(output_shape[0], _SLICE_CHANNELS)]
    return nn.Sequential(*head, static_layer(spec), *tail)


def _slices(shape: Shape) -> Workload:
    """Return the workload of two slices at a map of this shape without a layer between them."""
    channels, size = shape[0], shape[1]
    return Workload(
        f"slices-in{size}x{channels}",
        lambda: nn.Sequential(_slice(_SLICE_CHANNELS, channels), _slice(channels, _SLICE_CHANNELS)),
        (_SLICE_CHANNELS, *shape[1:]),
    )


assert set(METHODS) == set(device.METHODS)
