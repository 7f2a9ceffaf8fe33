"""End-to-end latency of whole networks on a device, for reports and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from latency_tables.engines.base import Engine
from latency_tables.engines.registry import create_engine
from latency_tables.measuring.drift import runs_without_drift
from latency_tables.measuring.fresh_process import (
    WorkloadList,
    process_progress,
    process_seed,
    time_in_fresh_process,
)
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.methods import NETWORK_VISITS_PER_ROUND, Workload
from latency_tables.measuring.plan import network_workload
from latency_tables.measuring.program_folder import shared_programs
from latency_tables.measuring.rounds import Visit, time_workloads
from latency_tables.measuring.tables import Networks
from latency_tables.table.device import DeviceSpec
from latency_tables.table.timing import Timing, process_latency_ms, summarize
from ofa.common.progress import ProgressCallback, silent
from ofa.space.config import AnyConfig
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig


@dataclass(frozen=True)
class TimedNetwork:
    """A network to measure and its input shape (channels, height, width)."""

    module: nn.Module
    image_shape: tuple[int, int, int]


def measure_networks(
    networks: Mapping[str, TimedNetwork],
    device: DeviceSpec,
    seed: int = 0,
    progress: ProgressCallback = silent,
    engine: Engine | None = None,
) -> dict[str, Timing]:
    """Time several networks in shuffled rounds, so that all run in the same phases of the machine.

    The latencies are the statistic that latency tables predict, from this process alone. The networks are not
    changed.

    Args:
        networks: networks by any name.
        device: device, batch size and measuring effort.
        seed: seed of the orders and inputs.
        progress: called per prepared network and per round.
        engine: engine; None: the engine of `device`.

    Raises:
        UserError: if the engine is unknown, not installed or fails, or does not support the device's
            settings.
    """
    workloads = [_workload(name, network) for name, network in networks.items()]
    runs = _Runs()
    time_workloads(engine or create_engine(device), workloads, device, seed, runs.add, progress=progress)
    runs_by_key = runs.by_key()
    return {name: summarize([runs_by_key[name]]) for name in networks}


def measure_network_ms(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    device: DeviceSpec,
    seed: int = 0,
    progress: ProgressCallback = silent,
    engine: Engine | None = None,
) -> Timing:
    """Time one network end to end; see `measure_networks`."""
    networks = {"network": TimedNetwork(module, image_shape)}
    return measure_networks(networks, device, seed, progress, engine)["network"]


def measure_subnets(
    networks: Networks,
    configs: Sequence[AnyConfig],
    device: DeviceSpec,
    seed: int = 0,
    progress: ProgressCallback = silent,
    processes: int | None = None,
) -> list[list[float]]:
    """Time networks of a space with random weights, together in several fresh processes.

    Args:
        networks: the space of a published family, or a user's model.
        configs: its sub-networks.
        device: device, batch size and measuring effort.
        seed: seed of the orders, weights and inputs.
        progress: called with the steps of all processes together.
        processes: number of processes; None: that of `device`.

    Returns:
        The latency (ms) of each network in each process.

    Raises:
        UserError: if the engine is unknown, not installed or fails, or a process ends early.
    """
    count = device.processes if processes is None else processes
    latencies: list[list[float]] = [[] for _ in configs]
    subnets: WorkloadList
    if isinstance(networks, GraphNetworks):
        subnets = networks.programs(configs, device.batch_size)
    else:
        subnets = _Subnets(networks, tuple(configs))
    budget_s = 60 * device.minutes / count
    with shared_programs() as programs:
        for process in range(count):
            runs, report = _Runs(), process_progress(progress, process, count)
            time_in_fresh_process(
                subnets,
                device,
                process_seed(seed, process),
                runs.add,
                progress=report,
                budget_s=budget_s,
                programs=programs,
            )
            runs_by_key = runs.by_key()
            for latency, workload in zip(latencies, subnets.workloads, strict=True):
                latency.append(process_latency_ms(runs_by_key[workload.key]))
    return latencies


@dataclass(frozen=True)
class _Subnets:
    """Networks of a published family as workloads."""

    space: StagedSpace
    configs: tuple[SubnetConfig, ...]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """One workload per network."""
        return tuple(network_workload(self.space, config) for config in self.configs)


class _Runs:
    """Collects the visits of a process."""

    def __init__(self) -> None:
        self._windows: list[Sequence[Visit]] = []

    def add(self, visits: Sequence[Visit]) -> None:
        self._windows.append(visits)

    def by_key(self) -> dict[str, list[float]]:
        """Return the runs (ms) of each workload at a common speed of the machine."""
        runs = runs_without_drift([(0, window) for window in self._windows])
        return {key: runs_ms for key, (runs_ms,) in runs.items()}


def _workload(name: str, network: TimedNetwork) -> Workload:
    return Workload(name, lambda: network.module, network.image_shape, NETWORK_VISITS_PER_ROUND)
