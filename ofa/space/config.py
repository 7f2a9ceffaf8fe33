"""`Config`: the value that says what one sub-network is, whatever its space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol, TypeAlias


class Config(Hashable, Protocol):
    """What a sub-network is: a frozen value; two are equal exactly when they are the same network."""

    @property
    def resolution(self) -> int:
        """Side of the input in pixels."""

    @property
    def id(self) -> str:
        """Short name of the network, the same in every process and version."""

    @property
    def facts(self) -> Mapping[str, int]:
        """Numbers that tables show beside the resolution, by their heading."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `SearchSpace.read` is the inverse."""


AnyConfig: TypeAlias = Any
"""A `Config` of the space at hand, in code that serves every kind of space."""
