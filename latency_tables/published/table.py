"""Published latency tables (YAML, ms per block key, a file per resolution) as latency tables."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latency_tables.published.keys import (
    KeyStyle,
    key_kind,
    key_resolution,
    key_style,
    key_widths,
    published_keys,
)
from latency_tables.table.calibration import Calibration
from latency_tables.table.device import DeviceSpec
from latency_tables.table.estimate import layers_by_resolution, merged_entries
from latency_tables.table.measured import now_text
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import ImportedTiming
from ofa.common.display import short_repr, short_text
from ofa.common.errors import UserError, unknown_name
from ofa.common.reading import read_yaml
from ofa.space.staged import StagedSpace

METHOD = "imported published table"
_SHOWN = 20
_STATISTICS = ("mean", "std", "var", "count")
_KINDS = ("Conv", "expanded_conv", "Conv_1", "AvgPool2D", "Conv_2", "Logits")


@dataclass(frozen=True)
class PublishedTables:
    """The content of the published files of one device.

    Attributes:
        style: style of the block keys.
        rows: entry of each block key, by resolution in pixels.
        sources: SHA-256 (16 hex digits) of each file, by file name.
    """

    style: KeyStyle
    rows: Mapping[int, Mapping[str, ImportedTiming]]
    sources: Mapping[str, str]

    @property
    def coverage(self) -> str:
        """Resolutions and widths of the tables, as text."""
        widths = {w for rows in self.rows.values() for key in rows for w in key_widths(key) or ()}
        return f"resolutions {_join(sorted(self.rows))} and blocks of {_join(sorted(widths))} channels"


def read_published_tables(paths: Sequence[Path]) -> PublishedTables:
    """Read the YAML files of one device; a folder stands for all YAML files in it.

    Raises:
        UserError: naming every missing file, invalid YAML, unknown block key and invalid latency.
    """
    errors: list[str] = []
    rows: dict[int, Mapping[str, ImportedTiming]] = {}
    styles: dict[KeyStyle, str] = {}
    sources = {}
    for path in _files(paths, errors):
        num_errors = len(errors)
        entries = _read_file(path, errors)
        if len(errors) == num_errors:
            sources[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        resolutions = {r for key in entries if (r := key_resolution(key)) is not None}
        if not resolutions and len(errors) == num_errors:
            errors.append(f"{path}: no key Conv-input:...; without it the table's resolution is unknown.")
        for resolution in resolutions & rows.keys():
            errors.append(f"{path}: resolution {resolution} is in another file, too; give it once.")
        rows |= dict.fromkeys(resolutions, entries)
        styles |= {style: path.name for key in entries if (style := key_style(key)) is not None}
    if len(styles) > 1:
        errors.append(
            f"{' and '.join(styles.values())} write block keys in different styles; import them separately."
        )
    if errors:
        raise UserError("\n".join(errors))
    return PublishedTables(next(iter(styles), KeyStyle.CHANNELS), dict(sorted(rows.items())), sources)


def _files(paths: Sequence[Path], errors: list[str]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        matches = sorted(path.glob("*.y*ml")) if path.is_dir() else [path] if path.is_file() else []
        if not matches:
            errors.append(f"{path}: no such table; expected a YAML file or a folder of them.")
        files += matches
    if not paths:
        errors.append("No files are given; expected the YAML files of one device.")
    return files


def _read_file(path: Path, errors: list[str]) -> dict[str, ImportedTiming]:
    try:
        values = read_yaml(path, "table")
    except UserError as error:
        errors.append(str(error))
        return {}
    if not isinstance(values, dict):
        errors.append(f"{path} holds no block keys; expected lines KEY: with mean: MILLISECONDS below.")
        return {}
    entries = {}
    for key, statistics in values.items():
        try:
            key_style(str(key))
            entries[str(key)] = _timing(statistics)
        except UserError as error:
            name = short_text(key)
            errors.append(f"{path}: {error}" if name in str(error) else f"{path}: {name}: {error}")
    return entries


def _timing(statistics: object) -> ImportedTiming:
    """Return the entry of one block; variance or standard deviation and count may be absent."""
    if not isinstance(statistics, dict) or "mean" not in statistics:
        raise UserError("no mean is given; expected mean: MILLISECONDS.")
    numbers = {name: _number(name, statistics[name]) for name in _STATISTICS if name in statistics}
    std = numbers["var"] ** 0.5 if "var" in numbers else None
    count = int(numbers["count"]) if "count" in numbers else None
    return ImportedTiming(numbers["mean"], numbers.get("std", std), count)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{name} is {short_repr(value)}; expected a number of at least 0.")
    return float(value)


def import_table(
    space: StagedSpace,
    published: PublishedTables,
    device: DeviceSpec,
    missing_ms: Mapping[str, float] | None = None,
    description: str = "",
) -> LatencyTable:
    """Return the latency table of `device` for the resolutions shared by space and published tables.

    A network's latency is the plain sum of its layers. The table has no measured error. If files of several
    resolutions give a layer different latencies, each resolution keeps its own.

    Args:
        space: space of the table; its restriction limits the required layers.
        published: result of `read_published_tables`.
        device: description of the device of the table.
        missing_ms: milliseconds of each kind of layer that the device does not run separately,
            e.g. {"AvgPool2D": 0.0}.
        description: free text about the device, stored with the table.

    Raises:
        UserError: if no resolution is shared, layers are missing (all are named), or `missing_ms` is invalid.
    """
    given_timings = _check_missing_ms(missing_ms or {})
    layers = layers_by_resolution(space)
    shared_resolutions = [resolution for resolution in layers if resolution in published.rows]
    if not shared_resolutions:
        raise UserError(
            f"The tables cover {published.coverage}; space {space.name!r} has the resolutions "
            f"{_join(layers)}. Use a space that shares a resolution with the tables."
        )
    timings: dict[str, dict[int, ImportedTiming]] = {}
    missing_keys: dict[str, None] = {}
    used_kinds = set()
    for resolution in shared_resolutions:
        for spec, key in published_keys(layers[resolution], published.style):
            entry = ImportedTiming(0.0) if key is None else published.rows[resolution].get(key)
            if entry is None and key is not None:
                entry = given_timings.get(key_kind(key))
                used_kinds.add(key_kind(key))
            if entry is None:
                missing_keys[str(key)] = None
            else:
                timings.setdefault(spec.key, {})[resolution] = entry
    if missing_keys:
        raise _missing_error(space, shared_resolutions, published, list(missing_keys))
    if unused_kinds := sorted(given_timings.keys() - used_kinds):
        raise UserError(f"missing_ms gives {_join(unused_kinds)}, which the tables have; leave it out.")
    return LatencyTable(
        device=device,
        engine={"engine": "imported", "description": description, **published.sources},
        method=METHOD,
        date=now_text(),
        seed=None,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=Calibration(1.0, 0.0, ()),
        validation=None,
        entries=merged_entries(timings, layers),
    )


def _check_missing_ms(missing_ms: Mapping[str, float]) -> dict[str, ImportedTiming]:
    for kind, value in missing_ms.items():
        if kind not in _KINDS:
            raise unknown_name("kind of layer in missing_ms", kind, _KINDS)
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"missing_ms.{kind} is {value}; expected milliseconds of at least 0.")
    return {kind: ImportedTiming(float(value)) for kind, value in missing_ms.items()}


def _missing_error(
    space: StagedSpace, resolutions: Sequence[int], published: PublishedTables, missing_keys: Sequence[str]
) -> UserError:
    layers = layers_by_resolution(space)
    needed_keys = {key for r in resolutions for _, key in published_keys(layers[r], published.style) if key}
    shown_keys = missing_keys[:_SHOWN] if 2 * len(missing_keys) > len(needed_keys) else missing_keys
    more = f" and {len(missing_keys) - len(shown_keys)} more" if len(missing_keys) > len(shown_keys) else ""
    absent_kinds = {key_kind(key) for key in missing_keys} - {
        key_kind(k) for rows in published.rows.values() for k in rows
    }
    hint = "".join(
        f" If {kind} is fused with another layer on this device, give its cost with missing_ms.{kind}=VALUE."
        for kind in sorted(absent_kinds)
    )
    return UserError(
        f"The tables lack {len(missing_keys)} of the {len(needed_keys)} keys that space {space.name!r} needs "
        f"at {_join(resolutions)} px: "
        f"{', '.join(shown_keys)}{more}. They cover {published.coverage}; use the space of "
        f"these widths (see width_multiplier), or restrict it to the covered part.{hint}"
    )


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
