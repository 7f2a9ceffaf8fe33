"""`SubnetConfig`: the value that identifies one sub-network of a `StagedSpace`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ofa.common.errors import UserError


@dataclass(frozen=True, order=True)
class BlockConfig:
    """The choices of one active block.

    Attributes:
        kernel_size: side of the depthwise or middle kernel in pixels.
        expand_ratio: mid channels as a multiple of others; see `StageSpec`.
        rank: share of the full rank of the middle convolution; 1 if it is not split.
    """

    kernel_size: int
    expand_ratio: float
    rank: float = 1.0

    def __post_init__(self) -> None:
        """Check the values and normalise the ratios, so that 4 and 4.0 are one network."""
        if not isinstance(self.kernel_size, int) or self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size is {self.kernel_size!r}; expected a positive odd integer.")
        for name in ("expand_ratio", "rank"):
            object.__setattr__(self, name, _positive(name, getattr(self, name)))

    def __str__(self) -> str:
        """Return kernel x expand ratio, and the rank of a split convolution."""
        rank = "" if self.rank == 1 else f"r{self.rank:g}"
        return f"{self.kernel_size}x{self.expand_ratio:g}{rank}"


@dataclass(frozen=True)
class StemConfig:
    """The choices of an elastic stem: number of residual layers, and two width multipliers."""

    depth: int
    inner_width: float
    width: float

    def __post_init__(self) -> None:
        """Check the values and normalise the widths."""
        if not isinstance(self.depth, int) or self.depth < 0:
            raise UserError(f"depth of the stem is {self.depth!r}; expected an integer from 0.")
        for name in ("inner_width", "width"):
            object.__setattr__(self, name, _positive(f"{name} of the stem", getattr(self, name)))


@dataclass(frozen=True)
class SubnetConfig:
    """One sub-network: input resolution (pixels) and, per stage, its active blocks.

    The depth of a stage is the length of its tuple: an inactive block does not exist, so two configs
    are equal exactly when they are the same network.

    Attributes:
        resolution: side of the input in pixels.
        stages: the active blocks of each stage.
        widths: width multiplier of each stage; empty unless the space has elastic widths.
        stem: choices of the stem; None for a fixed stem.
    """

    resolution: int
    stages: tuple[tuple[BlockConfig, ...], ...]
    widths: tuple[float, ...] = ()
    stem: StemConfig | None = None

    def __post_init__(self) -> None:
        """Check the structure; the space checks whether the values belong to it."""
        if not isinstance(self.resolution, int) or self.resolution < 1:
            raise UserError(f"resolution is {self.resolution!r}; expected a positive number of pixels.")
        for index, stage in enumerate(self.stages):
            if not stage:
                raise UserError(f"stage {index} has depth 0; expected at least one block.")
        if self.widths and len(self.widths) != len(self.stages):
            raise UserError(
                f"There are {len(self.widths)} widths for {len(self.stages)} stages; "
                "expected one of each stage, or none."
            )
        widths = tuple(_positive(f"width of stage {i}", width) for i, width in enumerate(self.widths))
        object.__setattr__(self, "widths", widths)

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of active blocks per stage."""
        return tuple(len(stage) for stage in self.stages)

    @property
    def facts(self) -> Mapping[str, int]:
        """Numbers for tables: the total number of blocks."""
        return {"blocks": sum(self.depths)}

    @property
    def lines(self) -> tuple[str, ...]:
        """The network in words: its input, its stem where that is elastic, and a line per stage."""
        lines = [f"input: {self.resolution} x {self.resolution} px"]
        if self.stem is not None:
            stem = self.stem
            layers = _counted(stem.depth, "residual layer")
            lines.append(f"stem: {layers}, inner width x {stem.inner_width:g}, width x {stem.width:g}")
        for number, stage in enumerate(self.stages, 1):
            width = f", width x {self.widths[number - 1]:g}" if self.widths else ""
            kernels = " ".join(str(block.kernel_size) for block in stage)
            ratios = " ".join(f"{block.expand_ratio:g}" for block in stage)
            if _has_ranks(stage):
                ratios += f", ranks {' '.join(f'{block.rank:g}' for block in stage)}"
            blocks = _counted(len(stage), "block")
            lines.append(f"stage {number}: {blocks}{width}; kernels {kernels}, expand {ratios}")
        return tuple(lines)

    @property
    def legend(self) -> str:
        """What the numbers in `lines` are."""
        ranks = (
            "; rank: its share of the full one, 1 for no split" if any(map(_has_ranks, self.stages)) else ""
        )
        return f"a number per block: kernel side in px; expand: inner channels / channels{ranks}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse. Absent parts are left out."""
        values: dict[str, Any] = {
            "resolution": self.resolution,
            "stages": [_stage_values(stage) for stage in self.stages],
        }
        if self.widths:
            values["widths"] = list(self.widths)
        if self.stem is not None:
            values["stem"] = asdict(self.stem)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SubnetConfig:
        """Build a config from `to_dict` output.

        Raises:
            UserError: if a key is missing or unexpected, or the lists of a stage differ in length.
        """
        if not {"resolution", "stages"} <= set(values) <= {"resolution", "stages", "widths", "stem"}:
            raise UserError(
                f"A sub-network has keys {sorted(values)}; expected resolution and stages, "
                "and where they are elastic, widths and stem."
            )
        if not isinstance(values["stages"], list | tuple):
            raise UserError(f"stages is {values['stages']!r}; expected a list.")
        stages = tuple(_read_stage(index, stage) for index, stage in enumerate(values["stages"]))
        widths, stem = values.get("widths", ()), values.get("stem")
        if not isinstance(widths, list | tuple):
            raise UserError(f"widths is {widths!r}; expected a list.")
        if stem is not None:
            if not isinstance(stem, Mapping) or set(stem) != {"depth", "inner_width", "width"}:
                raise UserError(f"stem is {stem!r}; expected depth, inner_width and width.")
            stem = StemConfig(**stem)
        return cls(values["resolution"], stages, tuple(widths), stem)

    @cached_property
    def id(self) -> str:
        """Short name of the network, stable across processes and versions."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def __str__(self) -> str:
        """Return a readable one-line form: resolution, then the choices of each block."""
        parts = [" ".join(map(str, stage)) for stage in self.stages]
        if self.widths:
            parts = [f"w{width:g} {part}" for width, part in zip(self.widths, parts, strict=True)]
        if self.stem is not None:
            parts.insert(0, f"stem d{self.stem.depth} w{self.stem.inner_width:g} w{self.stem.width:g}")
        return f"{self.resolution}px: {' | '.join(parts)}"


def _has_ranks(stage: tuple[BlockConfig, ...]) -> bool:
    return any(block.rank != 1 for block in stage)


def _stage_values(stage: tuple[BlockConfig, ...]) -> dict[str, list[float]]:
    """Return the plain values of a stage; ranks are left out where no convolution is split."""
    values: dict[str, list[float]] = {
        "kernel_sizes": [block.kernel_size for block in stage],
        "expand_ratios": [block.expand_ratio for block in stage],
    }
    return values | ({"ranks": [block.rank for block in stage]} if _has_ranks(stage) else {})


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _read_stage(index: int, stage: object) -> tuple[BlockConfig, ...]:
    names = ("kernel_sizes", "expand_ratios", "ranks")
    if not isinstance(stage, Mapping) or not set(names[:2]) <= set(stage) <= set(names):
        raise UserError(
            f"stage {index} is {stage!r}; expected kernel_sizes and expand_ratios, "
            "and where convolutions are split, ranks."
        )
    lists = [stage[name] for name in names if name in stage]
    if not all(isinstance(values, list | tuple) for values in lists):
        raise UserError(f"stage {index} is {stage!r}; expected two lists, or three with ranks.")
    if len(set(map(len, lists))) > 1:
        counts = " and ".join(f"{len(stage[name])} {name}" for name in names if name in stage)
        raise UserError(f"stage {index} has {counts}; expected one of each per block.")
    return tuple(BlockConfig(*values) for values in zip(*lists, strict=True))


def _positive(name: str, value: object) -> float:
    if not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{name} is {value!r}; expected a positive number.")
    return float(value)
