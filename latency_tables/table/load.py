"""`load_table`: the latency table in a file, of whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from latency_tables.table.graph_table import GraphTable
from latency_tables.table.measured import MeasuredTable, read_table_values
from latency_tables.table.table import LatencyTable


def load_table(path: Path) -> MeasuredTable:
    """Read a table: of a published family, or of a user's model.

    Raises:
        UserError: if the file is missing, truncated, of another schema version, or contains invalid values.
    """
    return GraphTable.load(path) if "kind" in read_table_values(path) else LatencyTable.load(path)
