"""A short way to write the groups of a network by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.graph.structure import Group

Indices = NDArray[np.int64]
Place = str | tuple[str, Indices]


def each(count: int, start: int = 0) -> Indices:
    """Return one index for each of `count` units."""
    return np.arange(start, start + count).reshape(count, 1)


def runs(count: int, length: int, start: int = 0) -> Indices:
    """Return `length` indices in a row for each of `count` units."""
    return np.arange(start, start + count * length).reshape(count, length)


def strides(count: int, length: int) -> Indices:
    """Return index i of each of `length` parts of `count`, for each unit i."""
    return np.arange(count * length).reshape(length, count).T


def heads_of_qkv(count: int, width: int) -> Indices:
    """Return the rows of queries, keys and values for each head."""
    return np.concatenate([runs(count, width, part * count * width) for part in range(3)], 1)


@dataclass(frozen=True)
class ExpectedGroup:
    """A group as it should be: name, number and size of its units, and their indices by "parameter:axis"."""

    name: str
    num_units: int
    unit_size: int
    axes: dict[str, list[list[int]]]


def expected(name: str, count: int, *places: Place, size: int = 1) -> ExpectedGroup:
    """Return a group whose units have one index of their own where a place says no other.

    A place is "conv" for rows and bias, ">conv" for columns, "norm!" for scale, shift and statistics, "conv-"
    for rows without a bias, or "parameter:axis".
    """
    axes: dict[str, list[list[int]]] = {}
    for place in places:
        text, indices = (place, each(count)) if isinstance(place, str) else place
        for key in _keys(text):
            axes[key] = indices.tolist()
    return ExpectedGroup(name, count, size, axes)


def _keys(text: str) -> list[str]:
    if ":" in text:
        return [text]
    if text.startswith(">"):
        return [f"{text[1:]}.weight:1"]
    if text.endswith("-"):
        return [f"{text[:-1]}.weight:0"]
    if text.endswith("!"):
        return [f"{text[:-1]}.{part}:0" for part in ("weight", "bias", "running_mean", "running_var")]
    return [f"{text}.weight:0", f"{text}.bias:0"]


def as_expected(group: Group) -> ExpectedGroup:
    """Return a group that was found in the form of those written by hand."""
    axes = {f"{name}:{axis}": indices.tolist() for (name, axis), indices in group.axes.items()}
    return ExpectedGroup(group.name, group.num_units, group.unit_size, axes)
