"""What two spaces differ in, so that the weights of one do not fit the other."""

from __future__ import annotations

import dataclasses
from typing import Any

from ofa.common.config import differences
from ofa.space.staged import StagedSpace

_FREE = ("name", "restriction", "resolutions", "num_classes", "in_channels")


def structure_differences(source: StagedSpace, space: StagedSpace) -> list[str]:
    """Return one text per difference between the elastic structures of two spaces.

    Names, resolutions, classes and channels of the images are free.

    Args:
        source: space of the weights.
        space: space that is to take them.
    """
    if len(source.stages) != len(space.stages):
        return [f"it has {len(source.stages)} stages; space {space.name!r} has {len(space.stages)}"]
    return differences(_structure(source), _structure(space))


def _structure(space: StagedSpace) -> dict[str, Any]:
    values = {
        name: value for name, value in dataclasses.asdict(space.unrestricted).items() if name not in _FREE
    }
    values["stages"] = {str(number): stage for number, stage in enumerate(values["stages"])}
    return values
