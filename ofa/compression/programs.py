"""Programs that measure forms of convolutions: each between narrow 1x1 convolutions, as inside a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ofa.compression.candidates import Candidate, Size
from ofa.compression.changes import FORMS, LayerChange
from ofa.compression.form import output_size
from ofa.compression.form_costs import FormCosts
from ofa.modules.split import smaller_convolution

_NARROW = 16
"""Channels before and after a program: as many as the widest vector instructions hold."""
_IMAGE_CHANNELS = 4
"""Inputs with at most so many channels are images, which come without a convolution before them."""


@dataclass(frozen=True)
class TimedModule:
    """A module to time, and the shape (channels, height, width) of its input."""

    module: nn.Module
    input_shape: tuple[int, int, int]


def form_programs(network: nn.Module, candidates: Sequence[Candidate]) -> dict[str, TimedModule]:
    """Return the programs of all forms of all candidates by key; layers of one shape share theirs.

    Args:
        network: the network, on the CPU; it is not changed.
        candidates: its convolutions that can be changed.
    """
    programs: dict[str, TimedModule] = {}
    for candidate in candidates:
        layer = network.get_submodule(candidate.layer)
        assert isinstance(layer, nn.Conv2d)
        for size in candidate.sizes:
            for change in (None, *candidate.changes):
                key = _key(candidate, size, change)
                if key not in programs:
                    module = _sandwich(_form(layer, change), layer.in_channels, layer.out_channels)
                    programs[key] = TimedModule(module, _input_shape(layer.in_channels, size))
            for channels, its_size in _ends(layer, size):
                slices = _sandwich(nn.Identity(), channels, channels)
                programs.setdefault(
                    _slices_key(channels, its_size), TimedModule(slices, (_NARROW, *its_size))
                )
    return programs


def form_costs(network: nn.Module, candidate: Candidate, latencies_ms: Mapping[str, float]) -> FormCosts:
    """Return what a convolution and its forms take by themselves, from the latencies (ms) of `form_programs`.

    The convolutions before and after the program are taken off, half of the two at either end.
    """
    layer = network.get_submodule(candidate.layer)
    assert isinstance(layer, nn.Conv2d)

    def total(change: LayerChange | None) -> float:
        return sum(
            latencies_ms[_key(candidate, size, change)]
            - sum(latencies_ms[_slices_key(*end)] / 2 for end in _ends(layer, size))
            for size in candidate.sizes
        )

    def num_weights(change: LayerChange | None) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in _form(layer, change).parameters())

    changes = (None, *candidate.changes)
    return FormCosts(candidate, tuple(map(total, changes)), tuple(map(num_weights, changes)))


def _key(candidate: Candidate, size: Size, change: LayerChange | None) -> str:
    form = "unchanged" if change is None else change.key
    return f"{candidate.shape} @{size[0]}x{size[1]} {form}"


def _slices_key(channels: int, size: Size) -> str:
    return f"slices {channels} @{size[0]}x{size[1]}"


def _ends(layer: nn.Conv2d, size: Size) -> Iterator[tuple[int, Size]]:
    """Yield channels and size of the maps at which a narrow convolution stands."""
    if layer.in_channels > _IMAGE_CHANNELS:
        yield layer.in_channels, size
    yield layer.out_channels, output_size(layer, size)


def _input_shape(channels: int, size: Size) -> tuple[int, int, int]:
    return (_NARROW if channels > _IMAGE_CHANNELS else channels, *size)


def _form(layer: nn.Conv2d, change: LayerChange | None) -> nn.Module:
    """Return a convolution or a form of it with random weights, which take as long as any others."""
    if change is None:
        channels, has_bias = (layer.in_channels, layer.out_channels), layer.bias is not None
        module = nn.Sequential(smaller_convolution(layer, *channels, (0, 1), bias=has_bias))
    else:
        module = FORMS[change.form].layers(layer, change.ranks)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.reset_parameters()
    return module


def _sandwich(module: nn.Module, in_channels: int, out_channels: int) -> nn.Module:
    head = [] if in_channels <= _IMAGE_CHANNELS else [nn.Conv2d(_NARROW, in_channels, 1)]
    return nn.Sequential(*head, module, nn.Conv2d(out_channels, _NARROW, 1))
