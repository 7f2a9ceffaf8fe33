"""Bounds on the latency that a table estimates: given ones, and some between its extremes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latency_tables.table.load import load_table
from latency_tables.table.measured import MAX_TABLE_ERROR, MeasuredTable
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


def limits_between(table: MeasuredTable, space: SearchSpace, shares: Sequence[float]) -> list[float]:
    """Return limits in milliseconds, rounded to three digits.

    Args:
        table: a table of the space, of any error.
        space: the space.
        shares: positions between the latencies of the smallest (0) and the largest network (1).
    """
    latency = table.estimator(space, max_table_error=math.inf)
    low, high = latency(space.genomes([space.smallest, space.largest]))
    return [float(f"{low + share * (high - low):.3g}") for share in shares]
