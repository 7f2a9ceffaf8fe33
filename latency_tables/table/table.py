"""`LatencyTable`: measured layers of a published family on one device, as a file and as an estimator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from latency_tables.table.device import device_settings
from latency_tables.table.estimate import layers_by_resolution, resolution_key, sum_by_resolution
from latency_tables.table.measured import MeasuredTable, check_version, shortened_list
from latency_tables.table.timing import ImportedTiming, Timing
from latency_tables.table.transfer import Transfer, transfer_identity
from ofa.architecture.cost import compile_cost
from ofa.architecture.layer import LayerSpec
from ofa.common.errors import Remedy, UserError
from ofa.space.estimator import Estimator
from ofa.space.staged import StagedSpace

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class LatencyTable(MeasuredTable[StagedSpace]):
    """Latencies of all layers of a family's space on a device; see `MeasuredTable`.

    The key of an entry is a `LayerSpec.key`, or `KEY@RESOLUTION` if the entry is valid only in networks of
    that resolution.

    Attributes:
        transfer: how the table was made of a few whole networks; None for a table of measured layers.
    """

    transfer: Transfer | None = field(default=None, kw_only=True)
    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)

    @classmethod
    @override
    def check_values(cls, values: Mapping[str, Any], path: Path) -> None:
        if "kind" in values:
            raise UserError(
                f"The latency table {path} is of a user's model; this works with tables of the published "
                "families only."
            )
        check_version(values, SCHEMA_VERSION, path)

    @property
    @override
    def identity(self) -> dict[str, Any]:
        transfer, networks = self.transfer, self.calibration.networks
        return super().identity | (transfer_identity(transfer.sources, len(networks)) if transfer else {})

    @property
    @override
    def remedy(self) -> Remedy:
        if self.transfer is None:
            return super().remedy
        return {"stage": "measure", "settings": device_settings(self.device)}

    def entry(self, spec: LayerSpec, resolution: int) -> Timing | ImportedTiming | None:
        """Return the entry of a layer in networks of `resolution` pixels; None if the table lacks it."""
        return self.entries.get(resolution_key(spec, resolution)) or self.entries.get(spec.key)

    def layer_ms(self, spec: LayerSpec, resolution: int) -> float:
        """Return what a layer adds to the sums of networks of `resolution` pixels.

        That is its entry and what the calibration adds for its work; NaN if the table lacks the entry.
        """
        entry = self.entry(spec, resolution)
        return math.nan if entry is None else entry.latency_ms + self.calibration.work_ms(spec)

    def missing_entries(self, space: StagedSpace) -> tuple[str, ...]:
        """Return the keys of all layers of the (restricted) `space` that the table lacks."""
        missing_keys = {
            spec.key: None
            for resolution, specs in layers_by_resolution(space).items()
            for spec in specs
            if self.entry(spec, resolution) is None
        }
        return tuple(missing_keys)

    @override
    def covered_resolutions(self, space: StagedSpace) -> tuple[int, ...]:
        return tuple(
            resolution
            for resolution, specs in layers_by_resolution(space).items()
            if all(self.entry(spec, resolution) for spec in specs)
        )

    @override
    def missing_text(self, space: StagedSpace) -> str:
        missing_keys = self.missing_entries(space)
        if not missing_keys:
            return ""
        resolutions = ", ".join(map(str, self.covered_resolutions(space)))
        keys = shortened_list(missing_keys, ", ") if resolutions else ", ".join(missing_keys)
        advice = f"It covers the resolutions {resolutions}; search with resolutions=[{resolutions}]. "
        return (
            f"The latency table of device {self.device.name!r} lacks {len(missing_keys)} layers of space "
            f"{space.name!r}: {keys}. {advice if resolutions else ''}"
            "Make a complete table."
        )

    def network_ms(self, specs: Iterable[LayerSpec], resolution: int) -> float:
        """Return the latency (ms) of the network of these layers at a resolution in pixels.

        Raises:
            UserError: naming every layer that the table lacks.
        """
        layers = tuple(specs)
        missing_keys = dict.fromkeys(spec.key for spec in layers if self.entry(spec, resolution) is None)
        if missing_keys:
            raise UserError(
                f"The latency table of device {self.device.name!r} lacks {len(missing_keys)} layers of this "
                f"network: {shortened_list(missing_keys, ', ')}. Make a complete table.",
                **self.remedy,
            )
        total = sum(self.layer_ms(spec, resolution) for spec in layers)
        return self.calibration.scale * total + self.calibration.offset_ms

    @override
    def total(self, space: StagedSpace) -> Estimator:
        if any("@" in key for key in self.entries):
            return sum_by_resolution(space, self._sum)
        return self._sum(space, space.resolutions[0])

    def _sum(self, space: StagedSpace, resolution: int) -> Estimator:
        """Return the uncalibrated sum of the layers in networks of `resolution`; NaN if one is missing."""
        return compile_cost(space, lambda spec: self.layer_ms(spec, resolution))
