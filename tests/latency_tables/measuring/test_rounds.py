from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from latency_tables.engines.base import TimedRun
from latency_tables.measuring import rounds
from latency_tables.measuring.affinity import pinned
from latency_tables.measuring.disturbance import Disturbance, SystemLoad, assess, read_system_load
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.rounds import Visit, time_workloads
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError

pytestmark = pytest.mark.timing

PROGRAMS = [Workload(f"program-{i}", nn.Identity, (1, 2, 2)) for i in range(6)]
WALL = SystemLoad(100.0, 1.0, 50.0, 80.0, 2.0)


class Times:
    """An engine of computed times."""

    def __init__(self, time_ms: Callable[[int], float]) -> None:
        self.time_ms, self.runs = time_ms, 0

    def describe(self) -> dict[str, str]:
        return {"engine": "times"}

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        def run() -> float:
            self.runs += 1
            return self.time_ms(self.runs)

        return run

    @contextmanager
    def measuring(self) -> Iterator[None]:
        yield


def visits_of(
    engine: Times,
    device: DeviceSpec,
    earlier: dict[str, list[list[float]]] | None = None,
    budget_s: float | None = None,
    texts: list[str] | None = None,
) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {program.key: [] for program in PROGRAMS}

    def record(visits: Sequence[Visit]) -> None:
        for key, runs in visits:
            found[key].append(runs)

    def progress(done: int, total: int, text: str) -> None:
        if texts is not None:
            texts.append(text)

    time_workloads(engine, PROGRAMS, device, 0, record, earlier, progress, budget_s)
    return found


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "latency_tables.measuring.rounds.read_system_load",
        lambda: SystemLoad(time.perf_counter(), 0, 0, 0, 0),
    )


def constant(run: int) -> float:
    return 2.0


@pytest.mark.usefixtures("quiet_machine")
def test_rounds_end_when_the_spread_is_small() -> None:
    found = visits_of(Times(constant), DeviceSpec("d", "none", rounds=50))
    assert {len(visits) for visits in found.values()} == {5}
    found = visits_of(Times(constant), DeviceSpec("d", "none", min_rounds=9, rounds=50))
    assert {len(visits) for visits in found.values()} == {9}


@pytest.mark.usefixtures("quiet_machine")
def test_noisy_latencies_are_measured_longer() -> None:
    rng = np.random.default_rng(0)

    def noisy(run: int) -> float:
        return float(rng.uniform(1, 1.5))

    counts = [
        len(visits_of(Times(noisy), DeviceSpec("d", "none", rounds=200, spread_percent=percent))["program-0"])
        for percent in (20.0, 3.0, 0.01)
    ]
    assert counts[0] < counts[1] < counts[2] == 200


@pytest.mark.usefixtures("quiet_machine")
def test_rounds_end_when_the_time_is_over_but_not_before_the_least() -> None:
    device = DeviceSpec("d", "none", min_rounds=3, rounds=50)
    found = visits_of(Times(lambda run: float(1 + run % 3)), device, budget_s=0.0)
    assert {len(visits) for visits in found.values()} == {3}
    assert {len(runs) for visits in found.values() for runs in visits} == {device.runs_per_visit}


@pytest.mark.usefixtures("quiet_machine")
def test_progress_knows_of_further_chunks_and_of_the_rounds_that_must_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "CHUNK_WORKLOADS", 2)
    now = 0.0
    monkeypatch.setattr("latency_tables.measuring.rounds.time.monotonic", lambda: now)

    def one_second(run: int) -> float:
        nonlocal now
        now += 1.0
        return 2.0

    device = DeviceSpec("d", "none", min_rounds=4, rounds=50, runs_per_visit=1, warmup_runs=0)
    seen: list[tuple[float, int, str]] = []
    time_workloads(
        Times(one_second),
        PROGRAMS,
        device,
        0,
        lambda visits: None,
        progress=lambda done, total, text: seen.append((now, done, text)),
        budget_s=0.0,
    )
    made = [(seconds, done) for seconds, done, text in seen if "round" in text]
    assert all("of at least 4" in text for _, _, text in seen if "round" in text)
    whole_s, done, text = seen[-1]
    assert (done, text) == (1000, "done")
    assert len(made) == 12
    for seconds, share in made:
        assert share / 1000 == pytest.approx(seconds / whole_s, rel=0.05)


@pytest.mark.usefixtures("quiet_machine")
def test_one_chunk_of_programs_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "CHUNK_WORKLOADS", 2)
    alive: weakref.WeakSet[TimedRun] = weakref.WeakSet()
    most = 0

    class Counted(Times):
        def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
            nonlocal most
            run = super().prepare(module, example)
            alive.add(run)
            most = max(most, len(alive))
            return run

    visits_of(Counted(constant), DeviceSpec("d", "none", rounds=2))
    assert most == 2


@pytest.mark.usefixtures("quiet_machine")
def test_earlier_visits_count() -> None:
    device = DeviceSpec("d", "none", min_rounds=3, rounds=3)
    earlier = {"program-0": [[1.0] * 5] * 3, "program-1": [[1.0] * 5]}
    found = visits_of(Times(constant), device, earlier)
    assert [len(found[program.key]) for program in PROGRAMS] == [0, 2, 3, 3, 3, 3]


def test_disturbed_visits_are_measured_again_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbances = iter([Disturbance(True, "machine busy: 2.0 cores; measuring again")])
    monkeypatch.setattr(rounds, "assess", lambda *_: next(disturbances, Disturbance(False, "")))
    engine, texts = Times(lambda run: float(run)), list[str]()
    device = DeviceSpec("d", "none", rounds=1, runs_per_visit=1, warmup_runs=0)
    found = visits_of(engine, device, texts=texts)
    assert {len(visits) for visits in found.values()} == {1}
    assert engine.runs == 3 * len(PROGRAMS)
    # One run when prepared, one disturbed, and the one that is kept.
    assert min(runs[0] for visits in found.values() for runs in visits) > 2 * len(PROGRAMS)
    assert any("machine busy" in text for text in texts)


def test_a_machine_that_is_always_busy_is_measured_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "assess", lambda *_: Disturbance(True, "machine busy"))
    engine = Times(constant)
    device = DeviceSpec("d", "none", rounds=2, runs_per_visit=1, warmup_runs=0)
    found = visits_of(engine, device)
    assert {len(visits) for visits in found.values()} == {2}
    assert engine.runs == len(PROGRAMS) * (1 + 2 * 2)


def test_a_later_slow_phase_is_seen_by_the_programs_own_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Disturbance] = []

    def assessed(before: SystemLoad, after: SystemLoad, slowdowns: Sequence[float]) -> Disturbance:
        seen.append(assess(WALL, WALL, slowdowns))
        return seen[-1]

    monkeypatch.setattr(rounds, "assess", assessed)
    # Prepared: 6 runs. Three rounds of 6 runs; then everything takes half as long again.
    engine = Times(lambda run: 1.0 if run <= 24 else 1.5)
    device = DeviceSpec("d", "none", rounds=4, runs_per_visit=1, warmup_runs=0)
    visits_of(engine, device)
    assert [disturbance.disturbed for disturbance in seen] == [False, False, False, True, True]
    assert "50 % slower than before" in seen[3].text


def test_an_engine_that_cannot_prepare_names_the_program() -> None:
    class Refusing(Times):
        def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
            raise NotImplementedError("no such operator")

    with pytest.raises(UserError, match=r"failed at program-\d: NotImplementedError: no such operator"):
        visits_of(Refusing(constant), DeviceSpec("d", "none"))


@pytest.mark.parametrize(
    ("change", "slowdowns", "disturbed", "text"),
    [
        ({"process_s": 1.0, "busy_s": 1.0}, [1.0, 1.1, 0.9], False, ""),
        # Another process on the other core changes nothing that the table is for.
        (
            {"process_s": 1.0, "busy_s": 2.0},
            [1.0, 1.02],
            False,
            "machine busy: other processes use 1.0 cores",
        ),
        (
            {"process_s": 0.8, "busy_s": 1.0, "runnable_wait_s": 0.2},
            [],
            True,
            "20 % of the time lost; measuring again",
        ),
        ({"process_s": 0.9, "busy_s": 0.9, "stolen_s": 0.1}, [1.0], True, "10 % of the time lost"),
        ({"process_s": 1.0, "busy_s": 1.0}, [1.3, 1.2, 1.0], True, "20 % slower than before"),
        ({"process_s": 1.0, "busy_s": 1.0}, [9.0, 1.0, 1.0], False, ""),
    ],
)
def test_disturbances(change: dict[str, float], slowdowns: list[float], disturbed: bool, text: str) -> None:
    before = SystemLoad(100.0, 1.0, 50.0, 80.0, 2.0)
    values = {name: getattr(before, name) + more for name, more in change.items()}
    after = SystemLoad(**{"wall_s": 101.0, "runnable_wait_s": 1.0, "stolen_s": 2.0} | values)
    disturbance = assess(before, after, slowdowns)
    assert disturbance.disturbed == disturbed
    assert (text in disturbance.text) if text else disturbance.text == ""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's accounting")
def test_usage_counts_the_work_of_this_process() -> None:
    before = read_system_load()
    end = time.process_time() + 0.15
    while time.process_time() < end:
        pass
    after = read_system_load()
    assert after.process_s - before.process_s == pytest.approx(0.15, abs=0.1)
    assert after.busy_s - before.busy_s > 0.05
    assert after.runnable_wait_s >= before.runnable_wait_s and after.stolen_s >= before.stolen_s
    assert after.wall_s - before.wall_s >= 0.15 - 0.02


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that can pin")
def test_pinning_is_undone_and_checked() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    with pytest.raises(RuntimeError, match="boom"), pinned((core,)):
        assert os.sched_getaffinity(0) == {core}
        raise RuntimeError("boom")
    assert os.sched_getaffinity(0) == before
    with (
        pytest.raises(UserError, match=r"affinity is \[99999\]; this process may use the cores \["),
        pinned((99999,)),
    ):
        pass
    with pinned(None):
        assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that can pin")
def test_programs_run_on_the_cores_of_the_device() -> None:
    core = max(os.sched_getaffinity(0))
    seen: list[set[int]] = []

    def time_ms(run: int) -> float:
        seen.append(os.sched_getaffinity(0))
        return 1.0

    visits_of(Times(time_ms), DeviceSpec("d", "none", affinity=(core,), rounds=1))
    assert all(cores == {core} for cores in seen)
