"""Bounds on the latency that a table estimates: given ones, and some between its extremes."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def limits_between(table: LatencyTable, space: StagedSpace, shares: Sequence[float]) -> list[float]:
    """Return limits in milliseconds, rounded to three digits.

    Args:
        table: a table of the space, of any error.
        space: the space.
        shares: where they lie between the latencies of the smallest (0) and the largest network (1).
    """
    latency = table.estimator(space, max_table_error=math.inf)
    low, high = latency(space.genomes([space.smallest, space.largest]))
    return [float(f"{low + share * (high - low):.3g}") for share in shares]
