"""`TableLimit`: a bound on the latency that a table estimates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.table.load import load_table
from latency_tables.table.measured import MAX_TABLE_ERROR
from ofa.common.text_settings import PathText
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace


@dataclass(frozen=True)
class TableLimit:
    """An upper bound in milliseconds on the latency estimated by a table."""

    table: PathText
    latency_ms: float

    def estimator(self, space: SearchSpace, max_table_error: float = MAX_TABLE_ERROR) -> Estimator:
        """Load the table and return its estimator; see `MeasuredTable.estimator`."""
        return load_table(Path(self.table)).estimator(space, max_table_error=max_table_error)
