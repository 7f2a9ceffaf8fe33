"""`load_space`: the declared spaces by name."""

from __future__ import annotations

from pathlib import Path

from ofa.common.config import build
from ofa.common.shipped import read_preset
from ofa.space.staged import StagedSpace


def load_space(name: str | Path) -> StagedSpace:
    """Return the space of `conf/space/NAME.yaml`, or of another YAML file of that kind.

    Args:
        name: a name such as "mobilenet_v3", or a path that ends in .yaml.

    Raises:
        UserError: for an unknown name, with the list of known ones, or naming every wrong entry.
    """
    return build(StagedSpace, read_preset("space", name), str(name))
