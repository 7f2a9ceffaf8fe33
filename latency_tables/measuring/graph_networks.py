"""`GraphNetworks`: the sub-networks of a user's model as programs to time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latency_tables.measuring.methods import Workload
from latency_tables.measuring.piece_workloads import network_program_workload
from latency_tables.measuring.plan import network_key
from ofa.common.errors import UserError
from ofa.graph.programs import GraphProgram
from ofa.graph.space import GraphSpace
from ofa.graph.supernet import GraphSupernet
from ofa.graph.tracing import GraphTracer
from ofa.space.plain import GeneConfig


@dataclass(frozen=True)
class GraphNetworks:
    """Sub-networks of a user's model as programs to time.

    Attributes:
        supernet: the supernet of the model.
        space: its space; a restriction limits what is measured.
    """

    supernet: GraphSupernet
    space: GraphSpace

    def tracer(self, batch: int) -> GraphTracer:
        """Return what gives the shapes of all tensors of a sub-network.

        Args:
            batch: number of images.

        Raises:
            UserError: if the model was captured in parts, or does not read one tensor of images.
        """
        graph = self.supernet.graph
        if graph is None:
            raise UserError(
                f"{self.space.name} has no graph of the whole network, which latency tables need: it was "
                "captured in parts, or its graph could not be saved. Limit MACs or parameters instead."
            )
        return GraphTracer(graph, self.space, self.supernet.template, batch)

    def programs(self, configs: Sequence[GeneConfig], batch: int) -> NetworkPrograms:
        """Return some sub-networks for this number of images; the result needs neither model nor supernet."""
        tracer = self.tracer(batch)
        return NetworkPrograms({network_key(self.space, c): tracer.network(c) for c in configs})


@dataclass(frozen=True)
class NetworkPrograms:
    """Whole networks to time, by the keys of their workloads."""

    programs: Mapping[str, GraphProgram]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """One workload per network."""
        return tuple(network_program_workload(key, program) for key, program in self.programs.items())
