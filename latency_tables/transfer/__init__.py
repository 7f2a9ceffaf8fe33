"""Latency tables from a few whole networks: which ones, the fit, its error, the table; without PyTorch."""

from latency_tables.transfer.network_file import table_from_file
from latency_tables.transfer.sources import read_sources

__all__ = [
    "read_sources",
    "table_from_file",
]
