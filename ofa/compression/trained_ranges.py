"""Ranges of the inputs of layers that a network was trained with for int8: kept, and found in its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.score_file import ScoreFile
from ofa.compression.facts import InputRange
from ofa.compression.quantisation.trained_inputs import TrainedInputs
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
        UserError: if the file is damaged or lacks a range, or cannot be read or written.
    """
    numbers = ScoreFile(path)

    def limit(name: str, side: int) -> float:
        key = f"{name} {('minimum', 'maximum')[side]}"
        if key not in numbers and name not in ranges:
            raise UserError(
                f"{path} lacks {key!r} of a trained range. Remove the folder {path.parent} to train anew."
            )
        return numbers.value(key, lambda: ranges[name][side])

    return tuple(InputRange(name, limit(name, 0), limit(name, 1)) for name in names)


def trained_inputs(network: nn.Module, images: Tensor, ranges: Sequence[InputRange]) -> TrainedInputs | None:
    """Return what layers read in one run of a network, with their ranges; None for no ranges.

    Args:
        network: network in eval mode.
        images: its input, shape (1, channels, h, w).
        ranges: ranges by layer; a layer that saw zeros alone has none.
    """
    by_layer = {values.layer: values for values in ranges if values.minimum < values.maximum}
    inputs: list[NDArray[np.float32]] = []
    found: list[InputRange] = []

    def add(name: str, call: LayerCall) -> None:
        if (own := by_layer.get(name.removesuffix(".weight"))) is not None:
            inputs.append(call.inputs.clone().numpy())
            found.append(own)

    if by_layer:
        with torch.no_grad(), LayerCalls(network, before=add):
            network(images)
    return TrainedInputs(images.numpy(), tuple(inputs), tuple(found)) if found else None
