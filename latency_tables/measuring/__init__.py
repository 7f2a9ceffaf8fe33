"""Measuring layers and networks on this machine."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from latency_tables.measuring.graph_networks import GraphNetworks
    from latency_tables.measuring.network_tables import measure_networks_table
    from latency_tables.measuring.networks import measure_network_ms
    from latency_tables.measuring.tables import measure

__all__ = [
    "GraphNetworks",
    "measure",
    "measure_network_ms",
    "measure_networks_table",
]

__getattr__ = lazy_names(
    __name__,
    {
        "graph_networks": ["GraphNetworks"],
        "network_tables": ["measure_networks_table"],
        "networks": ["measure_network_ms"],
        "tables": ["measure"],
    },
)
