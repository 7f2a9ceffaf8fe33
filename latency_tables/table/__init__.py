"""Latency tables as values, files and estimators; loads without PyTorch."""

from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable

__all__ = [
    "DeviceSpec",
    "LatencyTable",
]
