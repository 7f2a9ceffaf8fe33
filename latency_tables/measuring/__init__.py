"""Measuring layers and networks on this machine."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from latency_tables.measuring.build import measure
    from latency_tables.measuring.graph_networks import GraphNetworks
    from latency_tables.measuring.graph_plan import measure_graph
    from latency_tables.measuring.networks import measure_network_ms

__all__ = [
    "GraphNetworks",
    "measure",
    "measure_graph",
    "measure_network_ms",
]

__getattr__ = lazy_names(
    __name__,
    {
        "build": ["measure"],
        "graph_networks": ["GraphNetworks"],
        "graph_plan": ["measure_graph"],
        "networks": ["measure_network_ms"],
    },
)
