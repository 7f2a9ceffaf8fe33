"""Append-only JSON lines of measured networks: resumable, for one space and one origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.common.config import build, differences
from ofa.common.display import short_repr
from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError
from ofa.common.files import append_line, write_atomic
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.plain_values import checked_object, parse_json
from ofa.common.reading import read_bytes
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RecordHeader:
    """First line of a record file: the space, the metric, and the origin of its values.

    `provenance` describes the evaluation in free text, e.g. the supernet's checkpoint and the validation
    split; records of different provenance are never mixed.
    """

    schema_version: int
    space: str
    fingerprint: str
    provenance: dict[str, str]
    metric: Metric = DEFAULT_METRIC


class RecordFile:
    """An open record file; `configs` and `values` are its content, `append` adds to both.

    Only one process may write a file at a time.
    """

    def __init__(
        self,
        path: Path | None,
        space: SearchSpace,
        header: RecordHeader,
        records: dict[AnyConfig, float],
        *,
        writes: bool,
    ) -> None:
        """Take the parsed contents of `path`; use `open`, `read` or `in_memory` instead."""
        self.path, self._writes = path, writes
        self.space, self.header = space, header
        self._values = records

    @classmethod
    def in_memory(
        cls, space: SearchSpace, provenance: Mapping[str, str], *, metric: Metric = DEFAULT_METRIC
    ) -> RecordFile:
        """Return records without a file, none yet."""
        return cls(None, space, _header(space, provenance, metric), {}, writes=False)

    @classmethod
    def read(cls, path: Path, space: SearchSpace) -> RecordFile:
        """Return the records of a file, to be read alone.

        A last line that was cut off while being written is left out; the file is not changed.

        Raises:
            UserError: if the file is missing, of another space, or has a corrupt line (named by its number).
        """
        content = read_bytes(path, "accuracy records", stage="collect")
        header, records, _ = _parse(path, content, space)
        return cls(path, space, header, records, writes=False)

    @classmethod
    def open(
        cls,
        path: Path,
        space: SearchSpace,
        provenance: Mapping[str, str],
        world: World = SINGLE_PROCESS,
        *,
        metric: Metric = DEFAULT_METRIC,
    ) -> RecordFile:
        """Create the file, or resume it; an incomplete last line is removed.

        With several processes, the main one creates and writes the file; the others hold the same records.

        Raises:
            UserError: if the file has another space, origin or metric, is corrupt, or cannot be written.
        """
        header = _header(space, provenance, metric)
        if not world.is_main:
            world.wait()
        records = cls._open(path, space, header, world.is_main)
        if world.is_main:
            world.wait()
        return records

    @classmethod
    def _open(cls, path: Path, space: SearchSpace, header: RecordHeader, writes: bool) -> RecordFile:
        try:
            if not path.exists() or path.stat().st_size == 0:
                line = _line(asdict(header))
                write_atomic(path, lambda temporary: temporary.write_bytes(line))
                return cls(path, space, header, {}, writes=writes)
            stored_header, records, size = _parse(path, read_bytes(path, "accuracy records"), space)
            _check_origin(path, stored_header, header)
            if writes:
                _cut(path, size)
        except OSError as error:
            raise UserError(f"Could not open the accuracy records {path}: {error}.") from error
        return cls(path, space, header, records, writes=writes)

    @property
    def configs(self) -> list[AnyConfig]:
        """The measured sub-networks in the order of the file."""
        return list(self._values)

    @property
    def values(self) -> NDArray[np.float64]:
        """The values of the metric of `configs`, shape (n,)."""
        return np.array(list(self._values.values()), np.float64)

    @property
    def summary(self) -> str:
        """One line: how many sub-networks, and the range of their values."""
        metric = self.header.metric
        lowest, highest = self.values.min(), self.values.max()
        return (
            f"{len(self)} sub-networks, validation {metric.title} "
            f"{metric.scale * lowest:.2f} to {metric.show(highest)}"
        )

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._values)

    def __contains__(self, config: AnyConfig) -> bool:
        """Return whether `config` has been measured."""
        return config in self._values

    def append(self, config: AnyConfig, value: float) -> None:
        """Add a record and synchronise it to disk.

        Args:
            config: a sub-network without a record.
            value: value of the metric.

        Raises:
            UserError: if the sub-network has a record, the value is invalid for the metric, or the line
                cannot be written; the file is then unchanged.
        """
        if config in self._values:
            raise UserError(f"Sub-network {config.id} has a record already; each is measured once.")
        metric, value = self.header.metric, float(value)
        problem = metric.problem(value)
        if problem:
            raise UserError(f"Sub-network {config.id}: {problem}")
        line = _line({"subnet": config.to_dict(), "id": config.id, metric.name: value})
        try:
            if self._writes and self.path is not None:
                append_line(self.path, line)
        except OSError as error:
            raise UserError(
                f"Could not write to {self.path}: {error}. Check the permissions and free space; "
                f"its {len(self)} records are intact and collecting resumes from them."
            ) from error
        self._values[config] = value


def _header(space: SearchSpace, provenance: Mapping[str, str], metric: Metric) -> RecordHeader:
    return RecordHeader(SCHEMA_VERSION, space.name, space.fingerprint, dict(provenance), metric)


def _parse(
    path: Path, content: bytes, space: SearchSpace
) -> tuple[RecordHeader, dict[AnyConfig, float], int]:
    """Return header, records and the length in bytes of the complete lines."""
    # Text after the last line break is incomplete: a line is written together with its break.
    size = content.rfind(b"\n") + 1
    lines = content[:size].splitlines()
    header = _parse_header(path, lines[0] if lines else b"", space)
    whole_space = space.unrestricted
    records: dict[AnyConfig, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            config, value = _parse_record(line, whole_space, header.metric)
            if config in records:
                raise UserError(f"sub-network {config.id} has an earlier line.")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            text = error if isinstance(error, UserError) else f"not a record ({error})."
            raise UserError(
                f"Line {number} of the accuracy records {path} is corrupt: {text} "
                "Delete that line and complete the file.",
                stage="collect",
            ) from error
        records[config] = value
    return header, records, size


_KEEP_OR_BEGIN_ANEW = (
    "Records of different origins do not mix: go on with the same settings as before, or move the file away "
    "to collect anew."
)


def _parse_header(path: Path, line: bytes, space: SearchSpace) -> RecordHeader:
    try:
        header = build(RecordHeader, parse_json(line))
    except ValueError as error:
        raise UserError(
            f"{path} is not a file of accuracy records: its first line is not a header. "
            "Move the file away and collect anew.",
            stage="collect",
        ) from error
    if header.schema_version != SCHEMA_VERSION:
        raise UserError(
            f"The accuracy records {path} have schema version {header.schema_version}; this version reads "
            f"{SCHEMA_VERSION}. Collect them anew.",
            stage="collect",
        )
    if header.fingerprint != space.fingerprint:
        raise UserError(
            f"The accuracy records {path} are of space {header.space!r} ({header.fingerprint}); expected "
            f"space {space.name!r} ({space.fingerprint}). Choose that space or another file."
        )
    return header


def _parse_record(line: bytes, space: SearchSpace, metric: Metric) -> tuple[AnyConfig, float]:
    values = checked_object(parse_json(line), "the line")
    config = space.read(checked_object(values["subnet"], "subnet"))
    space.genome(config)
    if values["id"] != config.id:
        raise UserError(f"its id is {short_repr(values['id'])}, but the sub-network's id is {config.id!r}.")
    problem = metric.problem(values[metric.name])
    if problem:
        raise UserError(problem)
    return config, float(values[metric.name])


def _check_origin(path: Path, header: RecordHeader, expected: RecordHeader) -> None:
    """Raise unless the headers agree in metric and provenance."""
    if header.metric != expected.metric:
        raise UserError(
            f"The records {path} are of the metric {header.metric.name}; expected {expected.metric.name}. "
            f"{_KEEP_OR_BEGIN_ANEW}"
        )
    changes = differences(header.provenance, expected.provenance)
    if changes:
        raise UserError(
            f"The accuracy records {path} have another origin: {'; '.join(changes)}. {_KEEP_OR_BEGIN_ANEW}"
        )


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _cut(path: Path, size: int) -> None:
    with path.open("rb+") as file:
        file.truncate(size)
