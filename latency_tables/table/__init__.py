"""Latency tables as values, files and estimators; loads without PyTorch."""

from latency_tables.table.device import DeviceSpec
from latency_tables.table.graph_table import GraphTable
from latency_tables.table.load import load_table
from latency_tables.table.measured import MeasuredTable
from latency_tables.table.table import LatencyTable

__all__ = [
    "DeviceSpec",
    "GraphTable",
    "LatencyTable",
    "MeasuredTable",
    "load_table",
]
