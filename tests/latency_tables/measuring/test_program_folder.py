"""Programs are converted once for several processes, and come out as they went in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from measured_programs import Modules
from torch import Tensor, nn

from latency_tables.engines.base import TimedRun
from latency_tables.measuring import program_folder
from latency_tables.measuring.fresh_process import time_in_fresh_process
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.program_folder import ProgramFolder, shared_programs
from latency_tables.measuring.rounds import time_workloads
from latency_tables.table.device import DeviceSpec
from ofa.runtimes.base import Files

DEVICE = DeviceSpec("quick", "onnx_runtime", rounds=1, runs_per_visit=1, warmup_runs=0, processes=1)
WORKLOADS = [Workload(f"layer {number}", nn.Identity, (1, 2, 2)) for number in range(3)]


class Converting:
    """An engine whose files are the name of the module's class; it counts what it does."""

    def __init__(self) -> None:
        self.converted, self.loaded, self.prepared = 0, 0, 0

    def describe(self) -> dict[str, str]:
        return {"engine": "converting"}

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        self.prepared += 1
        return lambda: 1.0

    def convert(self, module: nn.Module, example: Tensor) -> Files:
        self.converted += 1
        return {"model": type(module).__name__.encode(), "parts/weights": b"1234"}

    def load(self, files: Files, example: Tensor) -> TimedRun:
        self.loaded += 1
        assert files == {"model": b"Identity", "parts/weights": b"1234"} and example.shape == (1, 1, 2, 2)
        return lambda: 1.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        yield


def test_each_program_is_converted_once() -> None:
    engine = Converting()
    with shared_programs() as programs:
        for seed in (0, 1):
            time_workloads(engine, WORKLOADS, DEVICE, seed, lambda visits: None, programs=programs)
    assert (engine.converted, engine.loaded, engine.prepared) == (3, 6, 0)


def test_without_a_folder_everything_is_converted() -> None:
    engine = Converting()
    time_workloads(engine, WORKLOADS, DEVICE, 0, lambda visits: None)
    assert (engine.converted, engine.loaded, engine.prepared) == (0, 0, 3)


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    programs, files = (
        ProgramFolder(tmp_path),
        {"model.xml": b"<net/>", "deep/er/model.bin": bytes(range(256))},
    )
    assert programs.files("a/b c") is None
    programs.add("a/b c", files)
    programs.add("a/b c", files)  # It is there already.
    assert programs.files("a/b c") == files and programs.files("a/b") is None
    assert ProgramFolder(tmp_path).files("a/b c") == files


def test_a_full_folder_and_one_that_is_gone_take_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_folder, "MAX_BYTES", 10)
    programs = ProgramFolder(tmp_path)
    programs.add("first", {"model": b"12345678"})
    programs.add("second", {"model": b"12345678"})
    programs.add("third", {"model": b"12"})
    assert [programs.files(key) is not None for key in ("first", "second", "third")] == [True, False, True]
    ProgramFolder(tmp_path).add("fourth", {"model": b"1"})
    assert programs.files("fourth") is None
    gone = ProgramFolder(tmp_path / "gone")
    gone.add("first", {"model": b"1"})
    assert gone.files("first") is None


@pytest.mark.usefixtures("forked_measuring")
def test_a_fresh_process_leaves_its_programs_to_the_next() -> None:
    pytest.importorskip("onnxruntime")
    times: list[str] = []
    with shared_programs() as programs:
        for seed in (0, 1):
            plan = Modules((nn.Identity,))
            time_in_fresh_process(
                plan, DEVICE, seed, lambda visits: times.extend(key for key, _ in visits), programs=programs
            )
            (workload,) = plan.workloads
            assert set(programs.files(workload.key) or {}) == {"model.onnx"}
    assert set(times) == {"Identity"} and len(times) >= 2
