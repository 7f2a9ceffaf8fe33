"""`LatencyTable`: measured layers of one space on one device, as a file and as an estimator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_tables.table.calibration import Calibration, Validation
from latency_tables.table.device import (
    DEVICE_FIELDS,
    DeviceSpec,
    device_differences,
    device_target,
    device_values,
)
from latency_tables.table.estimate import layers_by_resolution, resolution_key, sum_by_resolution
from latency_tables.table.timing import ImportedTiming, Timing
from ofa.architecture.cost import compile_cost
from ofa.architecture.layer import LayerSpec
from ofa.common.config import ConfigError, build
from ofa.common.errors import Remedy, UserError
from ofa.common.files import write_json
from ofa.common.latency_target import LatencyTarget
from ofa.common.reading import read_json
from ofa.space.estimator import Affine, Estimator
from ofa.space.staged import StagedSpace

SCHEMA_VERSION = 2
MAX_TABLE_ERROR = 10.0
"""Largest accepted MAPE of a table on whole networks in percent, by default."""
_SHOWN = 20


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of all layers of a space on a device.

    Attributes:
        device: measured device, and the measuring effort.
        engine: facts about the engine: name, version, processor.
        method: method of measuring an entry.
        date: end of the measurement, ISO 8601 with time zone.
        seed: seed of the networks, orders and inputs; None if the table was not measured here.
        space_name: name of the space of the layers.
        space_fingerprint: fingerprint of that space.
        entries: statistics per `LayerSpec.key`, or per `KEY@RESOLUTION` if a layer's entry is valid only in
            networks of that resolution.
        calibration: affine map from sums of entries to network latencies.
        validation: measured error of the table; None for an imported table.
        schema_version: schema version of the file.
    """

    device: DeviceSpec
    engine: dict[str, str]
    method: str
    date: str
    seed: int | None
    space_name: str
    space_fingerprint: str
    calibration: Calibration
    validation: Validation | None
    entries: dict[str, Timing | ImportedTiming]
    schema_version: int = SCHEMA_VERSION

    @property
    def identity(self) -> dict[str, Any]:
        """Values that further measurements must share with this table; see `table_identity`."""
        return table_identity(self.device, self.engine, self.method)

    def save(self, path: Path) -> None:
        """Write the table as JSON, atomically.

        Raises:
            UserError: if the file cannot be written.
        """
        write_json(path, {"schema_version": self.schema_version} | dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read a table.

        Raises:
            UserError: if the file is missing, truncated, of another schema version, or contains invalid
                values.
        """
        values = read_json(path, "latency table", "measure")
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"The latency table {path} has schema version {version}; this program reads version "
                f"{SCHEMA_VERSION}.",
                stage="measure",
            )
        try:
            if not (isinstance(engine := values.get("engine"), dict) and "engine" in engine):
                raise ConfigError("engine.engine is missing; expected the name of the engine.")
            return build(cls, values)
        except ConfigError as error:
            raise UserError(
                f"The latency table {path} is not valid: {_shorten(str(error).splitlines(), ' ')}",
                stage="measure",
            ) from error

    def entry(self, spec: LayerSpec, resolution: int) -> Timing | ImportedTiming | None:
        """Return the entry of a layer in networks of `resolution` pixels; None if the table lacks it."""
        return self.entries.get(resolution_key(spec, resolution)) or self.entries.get(spec.key)

    def missing_entries(self, space: StagedSpace) -> tuple[str, ...]:
        """Return the keys of all layers of the (restricted) `space` that the table lacks."""
        missing_keys = {
            spec.key: None
            for resolution, specs in layers_by_resolution(space).items()
            for spec in specs
            if self.entry(spec, resolution) is None
        }
        return tuple(missing_keys)

    def covered_resolutions(self, space: StagedSpace) -> tuple[int, ...]:
        """Return the resolutions of the (restricted) `space` at which no layer is missing."""
        return tuple(
            resolution
            for resolution, specs in layers_by_resolution(space).items()
            if all(self.entry(spec, resolution) for spec in specs)
        )

    def covered_space(self, space: StagedSpace) -> StagedSpace:
        """Return the space restricted to the covered resolutions; unchanged if there are none."""
        resolutions = self.covered_resolutions(space)
        return space.restrict({"resolution": resolutions}) if resolutions else space

    @property
    def _remedy(self) -> Remedy:
        """The sub-command that makes such a table, as errors name it."""
        if self.seed is None:
            return {"stage": "import-table", "settings": {"device.name": self.device.name}}
        return {"stage": "measure", "settings": {"device": self.device.name}}

    @property
    def target(self) -> LatencyTarget:
        """What the latencies are for."""
        error_percent = None if self.validation is None else self.validation.mape_percent
        return device_target(self.device, self.engine.get("processor", ""), error_percent)

    @property
    def error_text(self) -> str:
        """One line of text about the table's error on whole networks."""
        if self.validation is None:
            return "imported table: its error on whole networks was not measured"
        return self.validation.text

    def check(self, space: StagedSpace) -> None:
        """Raise unless the table covers the (restricted) `space`.

        Raises:
            UserError: if the table was made for another space, or lacks entries (all are named).
        """
        if self.space_fingerprint != space.fingerprint:
            raise UserError(
                f"The latency table of device {self.device.name!r} was made for space {self.space_name!r} "
                f"({self.space_fingerprint}); this is space {space.name!r} ({space.fingerprint}). "
                "It needs a table of this space.",
                **self._remedy,
            )
        missing_keys = self.missing_entries(space)
        if missing_keys:
            resolutions = ", ".join(map(str, self.covered_resolutions(space)))
            keys = _shorten(missing_keys, ", ") if resolutions else ", ".join(missing_keys)
            advice = f"It covers the resolutions {resolutions}; search with resolutions=[{resolutions}]. "
            raise UserError(
                f"The latency table of device {self.device.name!r} lacks {len(missing_keys)} layers of space "
                f"{space.name!r}: {keys}. {advice if resolutions else ''}"
                "Make a complete table.",
                **self._remedy,
            )

    def check_device(self, device: DeviceSpec) -> None:
        """Raise unless the table was measured with the settings of `device`; the effort may differ.

        Raises:
            UserError: naming all differences.
        """
        if changes := device_differences(DEVICE_FIELDS, self.device, device):
            raise UserError(
                f"The latency table of device {self.device.name!r} has other settings: {'; '.join(changes)}. "
                "Measure a table for these settings under another device name.",
                stage="measure",
            )

    def has_error_within(self, max_table_error: float) -> bool:
        """Return whether the measured error (MAPE in percent) is small enough, or none was measured."""
        return self.validation is None or self.validation.mape_percent <= max_table_error

    def check_error(self, max_table_error: float = MAX_TABLE_ERROR) -> None:
        """Raise if the table's error is too large; an imported table has no error.

        Args:
            max_table_error: largest accepted MAPE on whole networks, in percent.

        Raises:
            UserError: naming both values, and the remedies.
        """
        check_max_table_error(max_table_error)
        if self.validation and not self.has_error_within(max_table_error):
            error_percent = self.validation.mape_percent
            raise UserError(
                f"The latency table of device {self.device.name!r} has an error of {error_percent:.1f} % "
                f"(MAPE on {len(self.validation.networks)} whole networks); at most {max_table_error:g} % is "
                "allowed. Measure it again while the machine is quiet, with more device.minutes or "
                f"device.processes; or accept it with max_table_error={math.ceil(error_percent)}.",
                **self._remedy,
            )

    def network_ms(self, specs: Iterable[LayerSpec], resolution: int) -> float:
        """Return the latency (ms) of the network of these layers at a resolution in pixels.

        Raises:
            UserError: naming every layer that the table lacks.
        """
        layers = tuple(specs)
        entries = [self.entry(spec, resolution) for spec in layers]
        missing_keys = dict.fromkeys(
            spec.key for spec, entry in zip(layers, entries, strict=True) if entry is None
        )
        if missing_keys:
            raise UserError(
                f"The latency table of device {self.device.name!r} lacks {len(missing_keys)} layers of this "
                f"network: {_shorten(missing_keys, ', ')}. Make a complete table.",
                **self._remedy,
            )
        total = sum(entry.latency_ms for entry in entries if entry is not None)
        return self.calibration.scale * total + self.calibration.offset_ms

    def estimator(
        self,
        space: StagedSpace,
        device: DeviceSpec | None = None,
        max_table_error: float = MAX_TABLE_ERROR,
    ) -> Estimator:
        """Return the latency (ms) of populations of the (restricted) `space`.

        Genomes outside the restriction get NaN if the table lacks their layers.

        Raises:
            UserError: raised by `check`, `check_error` and, if `device` is given, `check_device`.
        """
        self.check(space)
        if device is not None:
            self.check_device(device)
        self.check_error(max_table_error)
        per_resolution = any("@" in key for key in self.entries)
        total = (
            sum_by_resolution(space, self._sum) if per_resolution else self._sum(space, space.resolutions[0])
        )
        return Affine(total, self.calibration.scale, self.calibration.offset_ms)

    def _sum(self, space: StagedSpace, resolution: int) -> Estimator:
        """Return the uncalibrated sum of the layers in networks of `resolution`; NaN if one is missing."""

        def latency_ms(spec: LayerSpec) -> float:
            entry = self.entry(spec, resolution)
            return math.nan if entry is None else entry.latency_ms

        return compile_cost(space, latency_ms)


def check_max_table_error(max_table_error: float) -> None:
    """Raise `UserError` unless this is a largest accepted error in percent."""
    if not max_table_error > 0:
        raise UserError(f"max_table_error is {max_table_error}; expected a number above 0, in percent.")


def table_identity(device: DeviceSpec, engine: dict[str, str], method: str) -> dict[str, Any]:
    """Return the values that must be equal for measurements to share a table, as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "device": device_values(device),
        "engine": engine,
        "method": method,
    }


def _shorten(texts: Iterable[str], separator: str) -> str:
    """Join the first texts and the number of further ones."""
    listed = list(texts)
    more = len(listed) - _SHOWN
    return separator.join(listed[:_SHOWN]) + (f" ... and {more} more" if more > 0 else "")
