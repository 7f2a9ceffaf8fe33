"""`TableLimit`: a bound on the latency that a table estimates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.table.table import MAX_TABLE_ERROR, LatencyTable
from ofa.common.text_settings import PathText
from ofa.space.estimator import Estimator
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class TableLimit:
    """An upper bound in milliseconds on the latency estimated by a table."""

    table: PathText
    latency_ms: float

    def estimator(self, space: StagedSpace, max_table_error: float = MAX_TABLE_ERROR) -> Estimator:
        """Load the table and return its estimator; see `LatencyTable.estimator`."""
        return LatencyTable.load(Path(self.table)).estimator(space, max_table_error=max_table_error)
