"""Export of tables as published latency tables (YAML, ms per block key, a file per resolution)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from latency_tables.published.keys import KeyStyle, key_kind, published_keys
from latency_tables.table.estimate import layers_by_resolution
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import ImportedTiming
from ofa.architecture.layer import LayerSpec
from ofa.common.errors import UserError
from ofa.common.files import write_together
from ofa.common.locks import sole_writer
from ofa.space.staged import StagedSpace


def export_table(table: LatencyTable, space: StagedSpace, style: KeyStyle, folder: Path) -> list[Path]:
    """Write `table` as published files, one per resolution that it covers, and return their paths.

    The sum of a network's keys equals the table's estimate: the calibration's scale is applied to each key,
    and its offset is part of the key Conv, which every network has once.

    Args:
        table: a table of `space`.
        space: the (restricted) space whose layers are written.
        style: style of the block keys; the files name it in their first lines.
        folder: folder of the files RESOLUTION_lookup_table.yaml.

    Raises:
        UserError: if the table covers no resolution, layers of the space have no published keys or share
            one with different latencies, or a file cannot be written.
    """
    resolutions = table.covered_resolutions(space)
    if not resolutions or table.space_fingerprint != space.fingerprint:
        table.check(space)
    texts = {}
    for resolution in resolutions:
        rows = _rows(table, resolution, layers_by_resolution(space)[resolution], style)
        details = f"{table.method}, {table.date}, {style.value} style"
        head = f"# Device {table.device.name}, space {space.name}, {resolution} px; {details}.\n"
        texts[folder / f"{resolution}_lookup_table.yaml"] = head + yaml.safe_dump(rows, sort_keys=True)
    with sole_writer(folder, "published latency table", setting="output"):
        write_together({path: partial(Path.write_text, data=text) for path, text in texts.items()})
    return list(texts)


def _rows(
    table: LatencyTable, resolution: int, specs: Sequence[LayerSpec], style: KeyStyle
) -> dict[str, dict[str, float]]:
    scale, offset_ms = table.calibration.scale, table.calibration.offset_ms
    rows: dict[str, dict[str, float]] = {}
    fused_ms = 0.0
    for spec, key in published_keys(specs, style):
        entry = table.entry(spec, resolution)
        assert entry is not None
        mean = scale * table.layer_ms(spec, resolution)
        if key is None:
            fused_ms += mean
            continue
        row = {"mean": mean} | ({} if entry.count is None else {"count": entry.count})
        if isinstance(entry, ImportedTiming) and entry.std_ms is not None:
            row["std"] = scale * entry.std_ms
        if rows.setdefault(key, row) != row:
            raise UserError(f"Two layers of different latency have the key {key}; use another style.")
    for key, row in rows.items():
        row["mean"] += {"Conv": offset_ms, "Logits": fused_ms}.get(key_kind(key), 0.0)
        if row["mean"] < 0:
            raise UserError(
                f"The calibration's offset of {offset_ms:.3g} ms makes {key} negative; such a table cannot "
                "be written as a sum of keys."
            )
    return rows
