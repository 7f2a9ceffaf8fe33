"""Ranges of the inputs of layers that a network was trained with for int8: kept, and found in its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.common.score_file import ScoreFile
from ofa.compression.facts import InputRange
from ofa.graph.layer_calls import LayerCall, LayerCalls


def kept_ranges(
    path: Path, names: Iterable[str], ranges: Mapping[str, tuple[float, float]]
) -> tuple[InputRange, ...]:
    """Return the ranges of layers, which a file keeps when the process is killed.

    Args:
        path: the file; what it holds is not taken from `ranges`.
        names: the layers.
        ranges: lowest and highest value by layer.

    Raises:
        UserError: if the file is damaged, or cannot be read or written.
    """
    numbers = ScoreFile(path)

    def limit(name: str, side: int) -> float:
        return numbers.value(f"{name} {('minimum', 'maximum')[side]}", lambda: ranges[name][side])

    return tuple(InputRange(name, limit(name, 0), limit(name, 1)) for name in names)


def ranges_by_call(
    network: nn.Module, images: Tensor, ranges: Sequence[InputRange]
) -> tuple[InputRange | None, ...]:
    """Return the range of each call of a convolution or linear map of a network, in the order of the calls.

    Args:
        network: network in eval mode.
        images: its input.
        ranges: ranges by layer; other calls, and those of layers that saw zeros alone, have None.
    """
    by_layer = {values.layer: values for values in ranges if values.minimum < values.maximum}
    found: list[InputRange | None] = []

    def add(name: str, call: LayerCall) -> None:
        found.append(by_layer.get(name.removesuffix(".weight")))

    with torch.no_grad(), LayerCalls(network, before=add):
        network(images)
    return tuple(found)
