"""`SubnetConfig`: the value that says what one sub-network is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ofa.errors import UserError


@dataclass(frozen=True, order=True)
class BlockConfig:
    """The choices of one active block: depthwise kernel size and channel expand ratio."""

    kernel_size: int
    expand_ratio: float

    def __post_init__(self) -> None:
        """Check both values and normalise the ratio, so that 4 and 4.0 are one network."""
        if not isinstance(self.kernel_size, int) or self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size is {self.kernel_size!r}; expected a positive odd integer.")
        if not isinstance(self.expand_ratio, int | float) or not self.expand_ratio > 0:
            raise UserError(f"expand_ratio is {self.expand_ratio!r}; expected a positive number.")
        object.__setattr__(self, "expand_ratio", float(self.expand_ratio))


@dataclass(frozen=True)
class SubnetConfig:
    """One sub-network: input resolution (pixels) and, per stage, its active blocks.

    The depth of a stage is the length of its tuple: an inactive block does not exist, so two configs
    are equal exactly when they are the same network.
    """

    resolution: int
    stages: tuple[tuple[BlockConfig, ...], ...]

    def __post_init__(self) -> None:
        """Check the structure; whether the values belong to a space is the space's question."""
        if not isinstance(self.resolution, int) or self.resolution < 1:
            raise UserError(f"resolution is {self.resolution!r}; expected a positive number of pixels.")
        for index, stage in enumerate(self.stages):
            if not stage:
                raise UserError(f"stage {index} has depth 0; expected at least one block.")

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of active blocks per stage."""
        return tuple(len(stage) for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse."""
        return {
            "resolution": self.resolution,
            "stages": [
                {
                    "kernel_sizes": [block.kernel_size for block in stage],
                    "expand_ratios": [block.expand_ratio for block in stage],
                }
                for stage in self.stages
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SubnetConfig:
        """Build a config from `to_dict` output.

        Raises:
            UserError: if a key is missing or superfluous, or the lists of a stage differ in length.
        """
        if set(values) != {"resolution", "stages"}:
            raise UserError(f"A sub-network has keys {sorted(values)}; expected resolution and stages.")
        stages = []
        if not isinstance(values["stages"], list | tuple):
            raise UserError(f"stages is {values['stages']!r}; expected a list.")
        for index, stage in enumerate(values["stages"]):
            if not isinstance(stage, Mapping) or set(stage) != {"kernel_sizes", "expand_ratios"}:
                raise UserError(f"stage {index} is {stage!r}; expected kernel_sizes and expand_ratios.")
            kernels, ratios = stage["kernel_sizes"], stage["expand_ratios"]
            if not isinstance(kernels, list | tuple) or not isinstance(ratios, list | tuple):
                raise UserError(f"stage {index} is {stage!r}; expected two lists.")
            if len(kernels) != len(ratios):
                raise UserError(
                    f"stage {index} has {len(kernels)} kernel_sizes and {len(ratios)} expand_ratios; "
                    "expected one of each per block."
                )
            stages.append(tuple(BlockConfig(k, e) for k, e in zip(kernels, ratios, strict=True)))
        return cls(values["resolution"], tuple(stages))

    @cached_property
    def id(self) -> str:
        """Short name of the network, the same in every process and version."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def __str__(self) -> str:
        """Return a readable one-line form: resolution, then kernel x expand ratio of each block."""
        stages = " | ".join(" ".join(f"{b.kernel_size}x{b.expand_ratio:g}" for b in s) for s in self.stages)
        return f"{self.resolution}px: {stages}"
