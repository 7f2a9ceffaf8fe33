from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from measured_programs import DiesAtRun, Modules, Threads
from torch import nn

from latency_tables.measuring.fresh_process import time_in_fresh_process
from latency_tables.measuring.networks import measure_subnets
from latency_tables.measuring.rounds import Visit
from latency_tables.measuring.tables import measure
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace

QUICK = DeviceSpec("quick", "pytorch", rounds=3, runs_per_visit=2, warmup_runs=1, processes=1)


def test_a_fresh_process_measures_with_the_devices_threads_and_reports() -> None:
    visits: list[Visit] = []
    steps: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, text: str) -> None:
        steps.append((done, total, text))

    time_in_fresh_process(
        Modules((Threads, nn.Identity)), QUICK, 0, visits.extend, {"Identity": [[1.0, 1.0]] * 3}, progress
    )
    assert [key for key, _ in visits] == ["Threads"] * 3
    assert all(len(runs) == 2 and min(runs) > 0 for _, runs in visits)
    assert steps[-1][:2] == (1000, 1000)
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_an_error_and_what_it_measured_is_kept() -> None:
    visits: list[Visit] = []
    device = DeviceSpec("quick", "pytorch", rounds=9, runs_per_visit=2, warmup_runs=1)
    with pytest.raises(
        UserError, match=r"on device 'quick' was ended by signal SIGKILL.*start again to go on"
    ):
        time_in_fresh_process(Modules((DiesAtRun,)), device, 0, visits.extend)
    assert 1 <= len(visits) <= 3  # a disturbed one is made twice
    assert not multiprocessing.active_children()


def test_a_users_mistake_in_the_process_reads_the_same() -> None:
    with pytest.raises(UserError, match=r"^There is nothing to measure\.$"):
        time_in_fresh_process(Modules((None,)), QUICK, 0, lambda visits: None)


def test_an_interruption_ends_the_process() -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        time_in_fresh_process(Modules((nn.Identity,)), QUICK, 0, lambda visits: None, progress=interrupt)
    assert not multiprocessing.active_children()


def test_a_table_and_networks_are_measured_in_fresh_processes(
    micro_space: StagedSpace, tmp_path: Path
) -> None:
    space = micro_space.restrict({"resolution": [8]})
    table = measure(space, QUICK, tmp_path / "t.json", seed=0, num_calibration=2, num_validation=2)
    assert not table.missing_text(space)
    configs = [space.smallest, space.largest]
    latencies = measure_subnets(space, configs, QUICK, processes=2)
    assert [len(found) for found in latencies] == [2, 2]
    assert min(min(found) for found in latencies) > 0


SCRIPT = """
import sys
from latency_tables.measuring.fresh_process import time_in_fresh_process
from latency_tables.table.device import DeviceSpec
from measured_programs import Modules
from torch import nn

print("the script runs")
visits = []
time_in_fresh_process(Modules((nn.Identity,)), DeviceSpec("quick", "pytorch", rounds=1), 0, visits.extend)
print(len(visits), sys.modules["__main__"].__file__ == __file__)
"""


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path, root: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{root}:{root / 'tests/helpers'}", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "the script runs\n1 True\n"
