"""`Measure`: the measuring interface of a verified search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ofa.space.config import AnyConfig


class Measure(Protocol):
    """Measures networks on the target device."""

    @property
    def is_local(self) -> bool:
        """Whether a call measures at once; otherwise it only requests the measurement."""
        ...

    @property
    def known_values(self) -> Mapping[AnyConfig, Sequence[float]]:
        """Measurements before the search: one value per fresh process for each network."""
        ...

    def __call__(self, configs: Sequence[AnyConfig]) -> Mapping[AnyConfig, Sequence[float]]:
        """Return one value per fresh process for each network; empty unless `is_local`."""
        ...
