"""End-to-end latency of whole networks on a device, for reports and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from latency_tables.device import DeviceSpec
from latency_tables.engines.base import Engine
from latency_tables.engines.registry import create_engine
from latency_tables.entry import NETWORK_VISITS_PER_ROUND, Program
from latency_tables.timing import Timing, summarize, time_programs
from ofa.progress import ProgressCallback, silent


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
    """Time several networks in shuffled rounds, so that all see the same phases of the machine.

    The latencies are the statistic that latency tables predict. The networks are left as they are.

    Args:
        networks: by a name of the caller's choice.
        device: where, with which batch size, and how thoroughly.
        seed: of the orders and inputs.
        progress: called per prepared network and per round.
        engine: what times; by default the engine that `device` names.

    Raises:
        UserError: if the engine is unknown or not installed, or cannot do what the device asks for.
    """
    programs = [_program(name, network) for name, network in networks.items()]
    runs: dict[str, list[float]] = {name: [] for name in networks}

    def record(name: str, runs_ms: list[float]) -> None:
        runs[name] += runs_ms

    time_programs(engine or create_engine(device), programs, device, seed, record, progress=progress)
    return {name: summarize(runs_ms) for name, runs_ms in runs.items()}


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


def _program(name: str, network: TimedNetwork) -> Program:
    return Program(name, lambda: network.module, network.image_shape, NETWORK_VISITS_PER_ROUND)
