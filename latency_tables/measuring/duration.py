"""`estimate_duration_s`: how long the measurement of a table will take, from a sample of its programs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from latency_tables.engines.base import Engine
from latency_tables.engines.registry import create_engine
from latency_tables.measuring.methods import COLD_VISIT_RUNS, Workload
from latency_tables.measuring.tables import Networks, table_workloads
from latency_tables.table.device import DeviceSpec

NUM_SAMPLES = 12
PROCESS_START_S = 8.0
"""Seconds until a fresh process has imported PyTorch and an engine, on 2 cores of an EPYC."""


def estimate_duration_s(networks: Networks, device: DeviceSpec, seed: int = 0) -> float:
    """Return about how many seconds `measure` takes here for the table of `networks` on `device`.

    A dozen of the programs are prepared and run, which takes about a second.

    Raises:
        UserError: if the engine is unknown, not installed or fails, or the space is too small for a table.
    """
    workloads = table_workloads(networks, device, seed)
    chosen_indices = np.random.default_rng(seed).permutation(len(workloads))[:NUM_SAMPLES]
    sample = [workloads[index] for index in chosen_indices]
    preparing_s, visit_s = _seconds_per_workload(create_engine(device), sample, device)
    round_s = visit_s * sum(workload.visits_per_round for workload in workloads)
    budget_s = 60 * device.minutes / device.processes
    rounds_s = max(min(device.rounds * round_s, budget_s), min(device.min_rounds, device.rounds) * round_s)
    return device.processes * (PROCESS_START_S + preparing_s * len(workloads) + rounds_s)


def _seconds_per_workload(
    engine: Engine, workloads: Sequence[Workload], device: DeviceSpec
) -> tuple[float, float]:
    """Return the mean seconds of preparing a workload and of one visit to it."""
    preparing_s = visits_s = 0.0
    num_runs = device.warmup_runs + device.runs_per_visit
    with torch.random.fork_rng(devices=[]), engine.measuring():
        for workload in workloads:
            start_s = time.perf_counter()
            run = engine.prepare(workload.build(), torch.randn(device.batch_size, *workload.image_shape))
            run()
            prepared_s = time.perf_counter()
            for _ in range(COLD_VISIT_RUNS if workload.starts_cold else num_runs):
                run()
            preparing_s += prepared_s - start_s
            visits_s += time.perf_counter() - prepared_s
    return preparing_s / len(workloads), visits_s / len(workloads)
