"""`Selection`: what a sub-network of a user's model keeps, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Selection:
    """What a sub-network keeps.

    Attributes:
        counts: units that each group keeps, its first ones.
        kernels: side of the kernel by name of the weight, where it is elastic.
        skipped: names of the blocks that are left out.
    """

    counts: tuple[int, ...]
    kernels: Mapping[str, int] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
