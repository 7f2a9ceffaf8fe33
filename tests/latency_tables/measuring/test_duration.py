"""The estimate of a measurement's duration, against an engine whose time is known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from torch import Tensor, nn

from latency_tables.measuring import duration
from latency_tables.measuring.duration import PROCESS_START_S, estimate_duration_s
from latency_tables.measuring.plan import plan_table
from latency_tables.table.device import DeviceSpec
from ofa.space.staged import StagedSpace

DEVICE = DeviceSpec("known", "pytorch", rounds=7, min_rounds=3, runs_per_visit=4, warmup_runs=1, processes=2)


class KnownEngine:
    """Takes 30 ms to prepare a program and 10 ms for each run, on a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def describe(self) -> dict[str, str]:
        return {}

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], float]:
        self.now_s += 0.020

        def run() -> float:
            self.now_s += 0.010
            return 10.0

        return run

    def measuring(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture(autouse=True)
def known_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = KnownEngine()
    monkeypatch.setattr(duration, "create_engine", lambda device: engine)
    monkeypatch.setattr(duration, "time", SimpleNamespace(perf_counter=lambda: engine.now_s))


def test_it_counts_preparation_and_all_rounds_of_every_process(micro_space: StagedSpace) -> None:
    workloads = plan_table(micro_space, DEVICE, 0).workloads
    visits = sum(workload.visits_per_round for workload in workloads)
    expected_s = 2 * (PROCESS_START_S + 0.030 * len(workloads) + 7 * 0.050 * visits)
    assert estimate_duration_s(micro_space, DEVICE) == pytest.approx(expected_s)


def test_the_time_budget_ends_the_rounds_but_not_before_the_least_of_them(micro_space: StagedSpace) -> None:
    workloads = plan_table(micro_space, DEVICE, 0).workloads
    round_s = 0.050 * sum(workload.visits_per_round for workload in workloads)
    fixed_s = PROCESS_START_S + 0.030 * len(workloads)
    budget_s = 5 * round_s
    shorter = replace(DEVICE, minutes=2 * budget_s / 60)
    assert estimate_duration_s(micro_space, shorter) == pytest.approx(2 * (fixed_s + budget_s))
    shortest = replace(DEVICE, minutes=1e-6)
    assert estimate_duration_s(micro_space, shortest) == pytest.approx(2 * (fixed_s + 3 * round_s))
