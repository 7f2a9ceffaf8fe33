"""`Measure`: what a verified search needs of the device that it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ofa.space.config import AnyConfig


class Measure(Protocol):
    """Measures networks on the device that a search is for."""

    @property
    def here(self) -> bool:
        """Whether networks can be measured at once; else a call only asks for it."""
        ...

    @property
    def known(self) -> Mapping[AnyConfig, Sequence[float]]:
        """What was measured before the search: a value per fresh process for each network."""
        ...

    def __call__(self, configs: Sequence[AnyConfig]) -> Mapping[AnyConfig, Sequence[float]]:
        """Return a value per fresh process for each network; nothing where they cannot be measured here."""
        ...
