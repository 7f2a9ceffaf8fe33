from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from latency_tables.engines.base import TimedRun
from latency_tables.measuring.build import journal_path
from latency_tables.measuring.disturbance import SystemLoad
from latency_tables.measuring.network_tables import measure_networks_table
from latency_tables.measuring.tables import measure
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from latency_tables.transfer.sources import Sources, read_sources
from ofa.common.errors import UserError
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

DEVICE = DeviceSpec("fake", "none", method="isolated", rounds=4, runs_per_visit=2, warmup_runs=1, processes=1)


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs beside the tests repeats no visits."""
    monkeypatch.setattr(
        "latency_tables.measuring.rounds.read_system_load",
        lambda: SystemLoad(time.perf_counter(), 0, 0, 0, 0),
    )


@pytest.fixture
def space() -> StagedSpace:
    stages = (
        StageSpec(8, 2, (1, 2, 3), (3, 5), (2, 3), "relu", False),
        StageSpec(16, 2, (1, 2), (3,), (2, 4), "hard_swish", True),
    )
    return StagedSpace("small", "mobilenet_v3", (16, 20), 8, 2, stages, (16, 24), num_classes=4)


class CountingEngine:
    """Computed times: parameters of a network or layer, times a factor; a network also has an offset.

    With a power other than one no sum of layers gives the times of networks.
    """

    def __init__(self, factor: float = 1.0, power: float = 1.0, stop_after: int | None = None) -> None:
        self.factor, self.power, self.stop_after = factor, power, stop_after
        self.runs = 0
        self.programs: list[nn.Module] = []

    def describe(self) -> dict[str, str]:
        return {"engine": "counting", "factor": str(self.factor)}

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        self.programs.append(module)
        time_ms: float = (
            self.factor * (1e-4 * (1 + sum(p.numel() for p in module.parameters()))) ** self.power
        )
        time_ms += 0.3 * isinstance(module, StaticNetwork)

        def run() -> float:
            self.runs += 1
            if self.runs == self.stop_after:
                raise KeyboardInterrupt
            return time_ms

        return run

    @contextmanager
    def measuring(self) -> Iterator[None]:
        yield


@pytest.fixture
def sources(space: StagedSpace, tmp_path: Path) -> Sources:
    measure(space, DEVICE, tmp_path / "source.json", engine=CountingEngine())
    return read_sources(str(tmp_path / "source.json"), space)


def test_whole_networks_alone_are_measured(space: StagedSpace, sources: Sources, tmp_path: Path) -> None:
    engine = CountingEngine(3.0)
    device = dataclasses.replace(DEVICE, name="other")
    table = measure_networks_table(space, device, tmp_path / "t.json", 10, sources=sources, engine=engine)
    assert len(engine.programs) == 10 and all(isinstance(p, StaticNetwork) for p in engine.programs)
    genomes = space.sample(100, np.random.default_rng(0))
    expected = 3 * sources.tables[0].total(space)(genomes) + 0.3
    np.testing.assert_allclose(table.estimator(space, device)(genomes), expected, rtol=1e-3)
    assert table.validation is not None and table.validation.repeatability_percent is None
    assert table.device == device and table.seed == 0 and table.engine["engine"] == "counting"
    assert LatencyTable.load(tmp_path / "t.json") == table


def test_two_processes_tell_the_repeatability(space: StagedSpace, sources: Sources, tmp_path: Path) -> None:
    device = dataclasses.replace(DEVICE, processes=2)
    engine = CountingEngine()
    table = measure_networks_table(space, device, tmp_path / "t.json", 8, sources=sources, engine=engine)
    assert table.validation is not None and table.validation.repeatability_percent == pytest.approx(0.0)


def test_a_finished_table_is_returned_and_an_interrupted_one_continues(
    space: StagedSpace, sources: Sources, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        measure_networks_table(
            space, DEVICE, path, 10, sources=sources, engine=CountingEngine(stop_after=150)
        )
    num_lines = len(journal_path(path).read_text().splitlines())
    assert num_lines > 10 and not path.exists()
    engine = CountingEngine()
    steps: list[tuple[int, int]] = []
    table = measure_networks_table(
        space,
        DEVICE,
        path,
        10,
        sources=sources,
        engine=engine,
        progress=lambda done, total, _: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1] and not journal_path(path).exists()
    whole = CountingEngine()
    measure_networks_table(space, DEVICE, tmp_path / "whole.json", 10, sources=sources, engine=whole)
    assert engine.runs < whole.runs
    idle = CountingEngine()
    assert measure_networks_table(space, DEVICE, path, 10, sources=sources, engine=idle) == table
    assert not idle.programs


def test_a_table_made_of_other_networks_or_tables_is_kept(
    space: StagedSpace, sources: Sources, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    measure_networks_table(space, DEVICE, path, 10, sources=sources, engine=CountingEngine())
    content = path.read_bytes()
    with pytest.raises(UserError, match="networks was 10 and is 12"):
        measure_networks_table(space, DEVICE, path, 12, sources=sources, engine=CountingEngine())
    with pytest.raises(UserError, match="sources was"):
        measure_networks_table(space, DEVICE, path, 10, engine=CountingEngine())
    with pytest.raises(UserError, match="method was"):
        measure(space, DEVICE, path, engine=CountingEngine())
    with pytest.raises(UserError, match="method was"):
        measure_networks_table(space, DEVICE, tmp_path / "source.json", 10, engine=CountingEngine())
    assert path.read_bytes() == content


def test_a_table_that_is_too_wrong_is_measured_again(
    space: StagedSpace, sources: Sources, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    measure_networks_table(space, DEVICE, path, 10, engine=CountingEngine(power=3.0))
    engine = CountingEngine(power=3.0)
    measure_networks_table(space, DEVICE, path, 10, engine=engine, max_table_error=1e-9)
    assert len(engine.programs) == 10
    more = CountingEngine(power=3.0)
    measure_networks_table(space, DEVICE, path, 12, sources=sources, engine=more, max_table_error=1e-9)
    assert len(more.programs) == 12


def test_a_table_keeps_its_resolutions(space: StagedSpace, sources: Sources, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for resolution, covered in ((16, (16,)), (20, (16, 20))):
        one = space.restrict({"resolution": [resolution]})
        table = measure_networks_table(one, DEVICE, path, 10, sources=sources, engine=CountingEngine())
        assert table.covered_resolutions(space) == covered


def test_too_few_networks_are_refused_before_anything_is_measured(
    space: StagedSpace, sources: Sources, tmp_path: Path
) -> None:
    engine = CountingEngine()
    with pytest.raises(UserError, match="There are 4 networks; expected 5 to 100"):
        measure_networks_table(space, DEVICE, tmp_path / "t.json", 4, sources=sources, engine=engine)
    assert not engine.programs and not journal_path(tmp_path / "t.json").exists()
