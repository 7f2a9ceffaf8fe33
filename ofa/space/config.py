"""`Config`: the value that identifies one sub-network of any space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol, TypeAlias


class Config(Hashable, Protocol):
    """Identity of a sub-network: a frozen value; two are equal exactly when they are the same network."""

    @property
    def resolution(self) -> int:
        """Side of the input in pixels."""

    @property
    def id(self) -> str:
        """Short name of the network, stable across processes and versions."""

    @property
    def facts(self) -> Mapping[str, int]:
        """Numbers for tables beside the resolution, by column heading."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The network in words, for users: a line for each of its parts."""

    @property
    def legend(self) -> str:
        """What the numbers in `lines` are; empty if they say it."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `SearchSpace.read` is the inverse."""


AnyConfig: TypeAlias = Any
"""A `Config` of the caller's space, in code for spaces of every kind."""
