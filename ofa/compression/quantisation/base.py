"""`Quantiser`: the one record of what makes an engine's int8 files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ofa.compression.quantisation.calibration import Images
from ofa.runtimes.base import Files

Quantise = Callable[[Collection[int]], Files]
"""Takes the operators that stay in floating point, returns the quantised files."""


@dataclass(frozen=True)
class Quantiser:
    """What makes an engine's int8 files; `ofa.compression.quantisation.registry` lists them.

    Attributes:
        engine: name of the engine's record in `ofa.runtimes.registry`, whose extra installs the packages.
        packages: what must be installed.
        prepare: takes the engine's files in fp32 and calibration images.
    """

    engine: str
    packages: tuple[str, ...]
    prepare: Callable[[Files, Sequence[Images]], Quantise]
