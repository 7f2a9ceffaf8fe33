"""One network that computes all its sub-networks, sorting of its channels, and extraction."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.supernet.protocol import AbstractSupernet
    from ofa.supernet.supernet import Supernet, build_supernet

__all__ = [
    "AbstractSupernet",
    "Supernet",
    "build_supernet",
]

__getattr__ = lazy_names(
    __name__,
    {
        "protocol": ["AbstractSupernet"],
        "supernet": ["Supernet", "build_supernet"],
    },
)
