"""`MeasuredTable`: what latency tables of all kinds have in common."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from latency_tables.table.calibration import Calibration, Validation
from latency_tables.table.device import (
    DEVICE_FIELDS,
    DeviceSpec,
    device_differences,
    device_target,
    device_values,
)
from latency_tables.table.timing import ImportedTiming, Timing
from ofa.common.config import ConfigError, build
from ofa.common.errors import Remedy, UserError
from ofa.common.files import write_json
from ofa.common.latency_target import LatencyTarget
from ofa.common.reading import read_json
from ofa.space.estimator import Affine, Estimator
from ofa.space.space import SearchSpace

MAX_TABLE_ERROR = 10.0
"""Largest accepted MAPE of a table on whole networks in percent, by default."""
_SHOWN = 20

S = TypeVar("S", bound=SearchSpace, default=Any)
T = TypeVar("T", bound="MeasuredTable")


@dataclass(frozen=True)
class MeasuredTable(ABC, Generic[S]):
    """Latencies of the parts of a space's networks on a device, as a file and as an estimator.

    Attributes:
        device: measured device, and the measuring effort.
        engine: facts about the engine: name, version, processor.
        method: method of measuring an entry.
        date: end of the measurement, ISO 8601 with time zone.
        seed: seed of the networks, orders and inputs; None if the table was not measured here.
        space_name: name of the space.
        space_fingerprint: fingerprint of that space.
        calibration: affine map from sums of entries to network latencies.
        validation: measured error of the table; None for an imported table.
        entries: statistics of each part by its key.
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
    schema_version: int = field(kw_only=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a table.

        Raises:
            UserError: if the file is missing, truncated, of another schema version or kind, or contains
                invalid values.
        """
        values = read_table_values(path)
        cls.check_values(values, path)
        return _table_from_values(cls, values, path)

    @classmethod
    @abstractmethod
    def check_values(cls, values: Mapping[str, Any], path: Path) -> None:
        """Raise unless the plain values of the file at `path` are of this kind and schema version."""

    @property
    def identity(self) -> dict[str, Any]:
        """Values that further measurements must share with this table; see `table_identity`."""
        return table_identity(self.schema_version, self.device, self.engine, self.method)

    @abstractmethod
    def covered_resolutions(self, space: S) -> tuple[int, ...]:
        """Return the resolutions of the (restricted) `space` at which nothing is missing."""

    @abstractmethod
    def missing_text(self, space: S) -> str:
        """Return what the table lacks of the (restricted) `space`, and what to do; empty if nothing."""

    @abstractmethod
    def total(self, space: S) -> Estimator:
        """Return the uncalibrated sums of the entries; NaN for networks that the table does not cover."""

    def save(self, path: Path) -> None:
        """Write the table as JSON, atomically.

        Raises:
            UserError: if the file cannot be written.
        """
        values = dataclasses.asdict(self)
        write_json(path, {"schema_version": values["schema_version"]} | values)

    def covered_space(self, space: S) -> S:
        """Return the space restricted to the covered resolutions; unchanged if there are none."""
        resolutions = self.covered_resolutions(space)
        return space.restrict({"resolution": resolutions}) if resolutions else space

    @property
    def remedy(self) -> Remedy:
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

    def check(self, space: S) -> None:
        """Raise unless the table covers the (restricted) `space`.

        Raises:
            UserError: if the table was made for another space, or lacks entries.
        """
        if self.space_fingerprint != space.fingerprint:
            raise UserError(
                f"The latency table of device {self.device.name!r} was made for space {self.space_name!r} "
                f"({self.space_fingerprint}); this is space {space.name!r} ({space.fingerprint}). "
                "It needs a table of this space.",
                **self.remedy,
            )
        if text := self.missing_text(space):
            raise UserError(text, **self.remedy)

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
            effort = "more networks" if self.validation.cross_validated else "more device.minutes"
            raise UserError(
                f"The latency table of device {self.device.name!r} has an error of {error_percent:.1f} % "
                f"(MAPE on {len(self.validation.networks)} whole networks); at most {max_table_error:g} % is "
                f"allowed. Measure it again while the machine is quiet, with {effort} or "
                f"device.processes; or accept it with max_table_error={math.ceil(error_percent)}.",
                **self.remedy,
            )

    def estimator(
        self,
        space: S,
        device: DeviceSpec | None = None,
        max_table_error: float = MAX_TABLE_ERROR,
    ) -> Estimator:
        """Return the latency (ms) of populations of the (restricted) `space`.

        Genomes outside the restriction get NaN if the table lacks their entries.

        Raises:
            UserError: raised by `check`, `check_error` and, if `device` is given, `check_device`.
        """
        self.check(space)
        if device is not None:
            self.check_device(device)
        self.check_error(max_table_error)
        return Affine(self.total(space), self.calibration.scale, self.calibration.offset_ms)


def _table_from_values(cls: type[T], values: dict[str, Any], path: Path) -> T:
    """Return the table of the plain values of a file.

    Raises:
        UserError: naming the file and the first invalid values.
    """
    try:
        if not (isinstance(engine := values.get("engine"), dict) and "engine" in engine):
            raise ConfigError("engine.engine is missing; expected the name of the engine.")
        return build(cls, values)
    except ConfigError as error:
        raise UserError(
            f"The latency table {path} is not valid: {shortened_list(str(error).splitlines(), ' ')}",
            stage="measure",
        ) from error


def read_table_values(path: Path) -> dict[str, Any]:
    """Return the plain values of a table's file.

    Raises:
        UserError: if the file is missing, truncated, or no JSON object.
    """
    return read_json(path, "latency table", "measure")


def check_version(values: Mapping[str, Any], expected: int, path: Path) -> None:
    """Refuse a file of another schema version.

    Raises:
        UserError: naming both versions.
    """
    version = values.get("schema_version")
    if version != expected:
        raise UserError(
            f"The latency table {path} has schema version {version}; this program reads version {expected}.",
            stage="measure",
        )


def check_max_table_error(max_table_error: float) -> None:
    """Raise `UserError` unless this is a largest accepted error in percent."""
    if not max_table_error > 0:
        raise UserError(f"max_table_error is {max_table_error}; expected a number above 0, in percent.")


def table_identity(
    schema_version: int, device: DeviceSpec, engine: dict[str, str], method: str
) -> dict[str, Any]:
    """Return the values that must be equal for measurements to share a table, as plain JSON values."""
    return {
        "schema_version": schema_version,
        "device": device_values(device),
        "engine": engine,
        "method": method,
    }


def now_text() -> str:
    """Return the time now, ISO 8601 with time zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def shortened_list(texts: Iterable[str], separator: str) -> str:
    """Join the first texts and the number of further ones."""
    listed = list(texts)
    more = len(listed) - _SHOWN
    return separator.join(listed[:_SHOWN]) + (f" ... and {more} more" if more > 0 else "")
