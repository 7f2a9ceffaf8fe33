from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latency_tables.engines.base import TimedRun
from latency_tables.measuring.build import journal_path
from latency_tables.measuring.disturbance import SystemLoad
from latency_tables.measuring.plan import assemble_table, plan_table
from latency_tables.measuring.tables import measure
from latency_tables.table.affine_fit import fit_affine
from latency_tables.table.calibration import Validation, choose_networks
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import MeasuredTable
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import MIN_MS, MeasurementError, Timing, summarize
from ofa.architecture.lowering import distinct_layers, lower
from ofa.common.errors import UserError
from ofa.modules.static import GlobalPool, StaticNetwork, static_layer
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

DEVICE = DeviceSpec("fake", "none", method="isolated", rounds=4, runs_per_visit=2, warmup_runs=1, processes=1)
OVERHEAD_MS, SCALE, OFFSET_MS = 0.05, 2.0, 0.3


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs beside the tests repeats no visits."""
    monkeypatch.setattr(
        "latency_tables.measuring.rounds.read_system_load",
        lambda: SystemLoad(time.perf_counter(), 0, 0, 0, 0),
    )


def make_space(num_classes: int = 4) -> StagedSpace:
    stages = (
        StageSpec(8, 2, (1, 2, 3), (3, 5), (2, 3), "relu", False),
        StageSpec(16, 2, (1, 2), (3,), (2, 4), "hard_swish", True),
    )
    return StagedSpace("small", "mobilenet_v3", (16, 20), 8, 2, stages, (16, 24), num_classes=num_classes)


def cost_ms(module: nn.Module) -> float:
    """A cost that is additive over layers, by counting on the module."""
    pools = sum(isinstance(m, GlobalPool) for m in module.modules())
    return 1e-4 * sum(p.numel() for p in module.parameters()) + 0.01 * pools


class FakeEngine:
    """Computed times: a layer costs its cost plus the overhead; a whole network an affine map of that."""

    def __init__(self, version: str = "1", stop_after: int | None = None) -> None:
        self.version = version
        self.stop_after = stop_after
        self.prepared = 0
        self.prepared_runs = 0
        self.runs = 0
        self.measuring_now = False

    def describe(self) -> dict[str, str]:
        return {"engine": "fake", "version": self.version}

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        assert example.shape[0] == DEVICE.batch_size
        self.prepared += 1
        self.prepared_runs += 1
        cost = cost_ms(module)
        time_ms = SCALE * cost + OFFSET_MS if isinstance(module, StaticNetwork) else cost + OVERHEAD_MS

        def run() -> float:
            assert self.measuring_now
            self.runs += 1
            if self.runs == self.stop_after:
                raise KeyboardInterrupt
            return time_ms

        return run

    @contextmanager
    def measuring(self) -> Iterator[None]:
        self.measuring_now = True
        try:
            yield
        finally:
            self.measuring_now = False


def validation_of(table: MeasuredTable) -> Validation:
    assert table.validation is not None
    return table.validation


def table_of(
    path: Path, engine: FakeEngine, space: StagedSpace | None = None, device: DeviceSpec = DEVICE
) -> LatencyTable:
    table = measure(space or make_space(), device, path, seed=3, num_validation=12, engine=engine)
    assert isinstance(table, LatencyTable)
    return table


def comparable(table: LatencyTable) -> LatencyTable:
    return replace(table, date="")


def test_calibration_is_exact_for_an_affine_device(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.json", FakeEngine())
    assert table.calibration.scale == pytest.approx(SCALE)
    assert table.calibration.offset_ms == pytest.approx(OFFSET_MS)
    assert validation_of(table).repeatability_percent is None
    assert validation_of(table).mape_percent == pytest.approx(0, abs=1e-6)
    assert validation_of(table).max_error_percent == pytest.approx(0, abs=1e-6)
    assert validation_of(table).kendall_tau == pytest.approx(1)
    assert len(table.calibration.networks) == 20
    assert len(validation_of(table).networks) == 12


def depthwise_ms(module: nn.Module) -> float:
    """What the depthwise convolutions of a module cost more in a network than alone."""
    elements: list[int] = []

    def count(layer: nn.Module, _: object, outputs: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        elements.append(outputs[0].numel() * layer.weight[0].numel() if layer.groups > 1 else 0)

    copied = copy.deepcopy(module).eval()
    for layer in copied.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        copied(torch.zeros(1, 3, 16, 16))
    return 2e-5 * sum(elements)


class SlowDepthwise(FakeEngine):
    """Depthwise convolutions cost more in whole networks, by their multiply-accumulates at 16 pixels."""

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        run = super().prepare(module, example)
        more_ms = depthwise_ms(module) if isinstance(module, StaticNetwork) else 0.0
        return lambda: run() + more_ms


def test_kinds_of_layers_that_cost_more_in_networks_are_weighted_anew(tmp_path: Path) -> None:
    path, space = tmp_path / "t.json", make_space().restrict({"resolution": [16]})
    table = table_of(path, SlowDepthwise(), space)
    assert validation_of(table).max_error_percent < 0.1
    assert table.calibration.scale == pytest.approx(SCALE, rel=1e-3)
    own = sum(value for name, value in table.calibration.ms_per_million.items() if "depthwise" in name)
    assert own > 0
    # What the file says is what populations and single networks get.
    loaded = LatencyTable.load(path)
    config = space.largest
    specs = lower(space, config)
    network = StaticNetwork(specs)
    expected = SCALE * cost_ms(network) + OFFSET_MS + depthwise_ms(network)
    assert loaded.network_ms(specs, 16) == pytest.approx(expected, rel=1e-3)
    assert loaded.estimator(space)(space.genomes([config]))[0] == pytest.approx(expected, rel=1e-3)
    # Entries are those of the layers, and four networks are too few for weights.
    plain = table_of(tmp_path / "p.json", FakeEngine(), space)
    assert table.entries == plain.entries and not plain.calibration.ms_per_million
    few = measure(space, DEVICE, tmp_path / "f.json", num_calibration=4, engine=SlowDepthwise())
    assert not few.calibration.ms_per_million
    assert validation_of(few).mape_percent > 10 * validation_of(table).mape_percent


def test_sandwiched_entries_are_the_layers_alone(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.json", FakeEngine(), device=replace(DEVICE, method="sandwich"))
    for spec in distinct_layers(make_space()):
        # Half a call is left in the first and the last layer, which have a slice on one side only.
        ends = spec.key.startswith(("conv-in16x3-", "conv-in20x3-", "linear-"))
        expected = cost_ms(static_layer(spec)) + (OVERHEAD_MS / 2 if ends else 0)
        assert table.entries[spec.key].latency_ms == pytest.approx(expected)
    assert table.calibration.scale == pytest.approx(SCALE)
    assert table.calibration.offset_ms == pytest.approx(OFFSET_MS - SCALE * OVERHEAD_MS)
    assert validation_of(table).max_error_percent == pytest.approx(0, abs=1e-6)


class Slower(FakeEngine):
    """The second process runs everything a tenth slower."""

    def __init__(self, programs: int, stop_after: int | None = None, prepared: int = 0) -> None:
        super().__init__(stop_after=stop_after)
        self.programs, self.prepared = programs, prepared

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        factor = 1.0 if self.prepared < self.programs else 1.1
        run = super().prepare(module, example)
        return lambda: run() * factor


def test_latencies_are_means_over_processes() -> None:
    timing = summarize([[1.0] * 4, [1.1] * 4])
    assert timing.latency_ms == pytest.approx(1.05)
    assert timing.count == 8


def test_a_process_in_which_everything_is_slower_is_a_slower_machine(tmp_path: Path) -> None:
    device = replace(DEVICE, processes=2)
    programs = len(plan_table(make_space(), device, 3, None, 12).workloads)
    engine = Slower(programs)
    table = table_of(tmp_path / "t.json", engine, device=device)
    assert engine.prepared == 2 * programs
    classifier = table.entries["linear-in24-out4"]
    assert classifier.latency_ms == pytest.approx(1e-4 * 100)
    assert classifier.count == 16
    assert validation_of(table).repeatability_percent == pytest.approx(0, abs=1e-6)


def test_a_restart_goes_on_in_the_process_that_was_interrupted(tmp_path: Path) -> None:
    device, path = replace(DEVICE, processes=2), tmp_path / "t.json"
    programs = len(plan_table(make_space(), device, 3, None, 12).workloads)
    whole = Slower(programs)
    expected = table_of(tmp_path / "w.json", whole, device=device)
    with pytest.raises(KeyboardInterrupt):
        table_of(path, Slower(programs, stop_after=whole.runs * 3 // 4), device=device)
    lines = [json.loads(line) for line in journal_path(path).read_text().splitlines()[1:]]
    assert [line["process"] for line in lines if "finished" in line] == [0]
    second = Slower(programs, prepared=programs)
    assert comparable(table_of(path, second, device=device)) == comparable(expected)
    assert second.prepared == 2 * programs
    visits = (whole.runs - whole.prepared_runs) / 3
    assert (second.runs - programs) / 3 == visits - (len(lines) - 1)


def test_a_table_that_is_too_wrong_is_measured_anew_with_any_effort(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table = table_of(path, FakeEngine())
    wrong = replace(table, validation=replace(validation_of(table), mape_percent=43.0))
    wrong.save(path)
    longer = replace(DEVICE, rounds=6, minutes=30.0, processes=2)

    def again(engine: FakeEngine, device: DeviceSpec, max_table_error: float) -> MeasuredTable:
        return measure(
            make_space(),
            device,
            path,
            seed=3,
            num_validation=12,
            engine=engine,
            max_table_error=max_table_error,
        )

    # It is kept by default, where the error is small enough, and while another device has its name.
    assert table_of(path, FakeEngine()) == wrong == again(FakeEngine(), DEVICE, 43.0)
    with pytest.raises(UserError, match="measured differently: .*version"):
        again(FakeEngine("2"), longer, 10.0)
    with pytest.raises(UserError, match="measured differently: .*threads"):
        again(FakeEngine(), replace(DEVICE, threads=2), 10.0)
    # An interruption leaves the old table, and its continuation replaces it.
    with pytest.raises(KeyboardInterrupt):
        again(FakeEngine(stop_after=100), longer, 10.0)
    assert LatencyTable.load(path) == wrong
    anew = again(FakeEngine(), longer, 10.0)
    assert validation_of(anew).mape_percent < 1 and anew.device == longer
    assert set(anew.entries) == set(table.entries) and LatencyTable.load(path) == anew
    assert not journal_path(path).exists()


def test_other_resolutions_are_added_to_a_table(tmp_path: Path) -> None:
    path, space = tmp_path / "t.json", make_space()
    first = table_of(path, FakeEngine(), space.restrict({"resolution": [16]}))
    engine = FakeEngine()
    both = table_of(path, engine, space.restrict({"resolution": [20]}))
    assert first.covered_resolutions(space) == (16,) and both.covered_resolutions(space) == (16, 20)
    assert {key: both.entries[key] for key in first.entries} == first.entries
    layers = [program for program in plan_table(space, DEVICE, 3).workloads if "network" not in program.key]
    assert engine.prepared < len(layers) + 18
    assert {network.config["resolution"] for network in validation_of(both).networks} == {16, 20}
    again = FakeEngine()
    assert table_of(path, again, space.restrict({"resolution": [16]})) == both and again.prepared == 0


def test_an_unfinished_table_goes_on_with_another_plan(tmp_path: Path) -> None:
    device, path, space = replace(DEVICE, processes=2), tmp_path / "t.json", make_space()
    small = space.restrict({"resolution": [16]})
    whole = FakeEngine()
    table_of(tmp_path / "w.json", whole, small, device)
    with pytest.raises(KeyboardInterrupt):
        table_of(path, FakeEngine(stop_after=whole.runs * 3 // 4), small, device)
    table = table_of(path, FakeEngine(), space, device)
    # Everything was measured in both processes, what was new in the first one as well.
    assert {entry.count for entry in table.entries.values()} == {16}
    assert validation_of(table).repeatability_percent is not None


def test_the_time_counts_over_restarts(tmp_path: Path) -> None:
    class Hours(FakeEngine):
        def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
            run = super().prepare(module, example)
            return lambda: run() * 3.6e6

    path, device = tmp_path / "t.json", replace(DEVICE, rounds=30, min_rounds=2, spread_percent=1e-9)
    whole = Hours()
    table_of(tmp_path / "w.json", whole, device=device)
    with pytest.raises(KeyboardInterrupt):
        table_of(path, Hours(stop_after=whole.runs // 2), device=device)
    engine = Hours()
    table_of(path, engine, device=device)
    assert engine.runs == engine.prepared_runs


@pytest.mark.parametrize(("time_ms", "shown"), [(0.0, "0.0"), (float("nan"), "nan"), (-1.0, "-1.0")])
def test_times_that_no_clock_gives_are_refused(time_ms: float, shown: str, tmp_path: Path) -> None:
    class Broken(FakeEngine):
        def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
            run = super().prepare(module, example)
            return run if isinstance(module, StaticNetwork) else lambda: run() * 0 + time_ms

    with pytest.raises(MeasurementError, match=rf"A run of \S+ took {shown} ms .*above 0"):
        table_of(tmp_path / "t.json", Broken())
    plan = plan_table(make_space(), DEVICE, 3, 6, 12)
    runs = {program.key: [[1.0, 2.0]] for program in plan.workloads} | {"baseline": [[1.0], [time_ms]]}
    with pytest.raises(MeasurementError, match=rf"A run of baseline took {shown} ms"):
        assemble_table(plan, {"engine": "fake"}, runs)


def test_an_engine_that_fails_midway_names_the_program_and_loses_nothing(tmp_path: Path) -> None:
    class Failing(FakeEngine):
        def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
            run = super().prepare(module, example)

            def fail() -> float:
                if self.runs == 700:
                    raise RuntimeError("device lost")
                return run()

            return fail

    path = tmp_path / "t.json"
    with pytest.raises(
        UserError, match=r"The engine failed at \S+: RuntimeError: device lost\. .* are saved"
    ):
        table_of(path, Failing())
    assert len(journal_path(path).read_text().splitlines()) > 50
    assert comparable(table_of(path, FakeEngine())) == comparable(table_of(tmp_path / "w.json", FakeEngine()))


def test_a_layer_that_costs_less_than_its_references_costs_nothing(tmp_path: Path) -> None:
    plan = plan_table(make_space(), replace(DEVICE, method="sandwich"), 3, 6, 12)
    runs = {program.key: [[5.0, 5.0]] for program in plan.workloads}
    pool = next(spec for spec in plan.specs if spec.key.startswith("pool"))
    runs[pool.key] = [[4.9, 4.9]]
    table = assemble_table(plan, {"engine": "fake"}, runs)
    assert table.entries[pool.key].latency_ms == MIN_MS


def test_incomplete_measurements_are_refused() -> None:
    plan = plan_table(make_space(), DEVICE, 3, 6, 12)
    runs = {program.key: [[1.0, 2.0]] for program in plan.workloads}
    del runs["linear-in24-out4"]
    runs["baseline"] = [[1.0], []]
    with pytest.raises(
        UserError, match=r"lack 2 of the \d+ programs of space 'small': baseline, linear-in24"
    ):
        assemble_table(plan, {"engine": "fake"}, runs)


def test_equal_plans_for_equal_arguments() -> None:
    plans = [plan_table(make_space(), DEVICE, seed, 3, 5) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    keys = [program.key for program in plans[0].workloads]
    assert len(keys) == len(set(keys)) == 1 + len(distinct_layers(make_space())) + 8


def test_entries_are_the_layers_without_the_call_overhead(tmp_path: Path) -> None:
    space = make_space()
    table = table_of(tmp_path / "t.json", FakeEngine())
    assert list(table.entries) == [spec.key for spec in distinct_layers(space)]
    # The classifier has 24 * 4 weights and 4 biases.
    assert table.entries["linear-in24-out4"].latency_ms == pytest.approx(1e-4 * 100)
    assert table.entries["linear-in24-out4"].count == 8
    classifier = table.entries["linear-in24-out4"]
    assert isinstance(classifier, Timing)
    assert classifier.median_ms == pytest.approx(1e-4 * 100 + OVERHEAD_MS)


def test_validation_networks_have_no_part_in_the_calibration(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.json", FakeEngine())
    fitted = {network.id for network in table.calibration.networks}
    held_out = {network.id for network in validation_of(table).networks}
    assert len(fitted) == 20 and len(held_out) == 12
    assert not fitted & held_out


def test_stored_errors_follow_from_the_stored_networks(tmp_path: Path) -> None:
    class Noisy(FakeEngine):
        def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
            run, factor = super().prepare(module, example), 1 + 0.2 * (self.prepared % 3)
            return lambda: run() * factor

    table = table_of(tmp_path / "t.json", Noisy())
    pairs = [(n.predicted_ms, n.measured_ms) for n in validation_of(table).networks]
    errors = [100 * abs(p - m) / m for p, m in pairs]
    assert max(errors) > 1
    assert validation_of(table).mape_percent == pytest.approx(sum(errors) / 12)
    assert validation_of(table).max_error_percent == pytest.approx(max(errors))
    signs = [np.sign((p - q) * (m - n)) for i, (p, m) in enumerate(pairs) for q, n in pairs[i + 1 :]]
    assert validation_of(table).kendall_tau == pytest.approx(sum(signs) / len(signs))


@pytest.mark.parametrize("stop_after", [1, 40, 400, 900])
def test_an_interrupted_build_continues_and_gives_the_same_table(stop_after: int, tmp_path: Path) -> None:
    whole_engine = FakeEngine()
    whole = table_of(tmp_path / "whole.json", whole_engine)
    path = tmp_path / "t.json"
    first, second = FakeEngine(stop_after=stop_after), FakeEngine()
    with pytest.raises(KeyboardInterrupt):
        table_of(path, first)
    assert not path.exists()
    lines = journal_path(path).read_text().splitlines()
    visits_before = len(lines) - 1
    assert visits_before <= stop_after
    assert not first.measuring_now
    table = table_of(path, second)
    assert comparable(table) == comparable(whole)
    assert not journal_path(path).exists()
    # A visit is one warm-up and two timed runs; each prepared program runs once more.
    visits = (whole_engine.runs - whole_engine.prepared) / 3
    assert (second.runs - second.prepared) / 3 == visits - visits_before


def test_a_line_cut_off_by_a_crash_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(path, FakeEngine(stop_after=900))
    text = journal_path(path).read_text()
    journal_path(path).write_text(text[:-7])
    assert comparable(table_of(path, FakeEngine())) == comparable(table_of(tmp_path / "w.json", FakeEngine()))


def test_a_crash_before_the_first_whole_line_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    journal_path(path).write_text('{"schema_ver')
    assert validation_of(table_of(path, FakeEngine())).kendall_tau == pytest.approx(1)


def test_a_damaged_unfinished_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(path, FakeEngine(stop_after=900))
    lines = journal_path(path).read_text().splitlines()
    lines[3] = '{"key": "x"}'
    journal_path(path).write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"Line 4 of .* is not a measurement.*Delete"):
        table_of(path, FakeEngine())


def test_an_unfinished_table_of_another_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(path, FakeEngine(stop_after=900))
    before = journal_path(path).read_bytes()
    with pytest.raises(UserError, match=r"engine\.version was '1' and is '2'.*Delete it") as caught:
        table_of(path, FakeEngine(version="2"))
    assert "unfinished table" in str(caught.value)
    other = replace(DEVICE, name="there", threads=2)
    with pytest.raises(UserError, match=r"device\.name was 'fake' and is 'there'; device\.threads was 1"):
        measure(make_space(), other, path, seed=3, engine=FakeEngine())
    assert journal_path(path).read_bytes() == before


def test_an_unfinished_table_from_before_a_setting_existed_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(path, FakeEngine(stop_after=900))
    header, *lines = journal_path(path).read_text().splitlines()
    identity = json.loads(header)
    for name in ("affinity", "min_rounds"):
        assert identity["device"].pop(name) == getattr(DeviceSpec("any", "pytorch"), name)
    journal_path(path).write_text("\n".join([json.dumps(identity), *lines]) + "\n")
    assert comparable(table_of(path, FakeEngine())) == comparable(table_of(tmp_path / "w.json", FakeEngine()))


def test_a_complete_table_is_returned_without_measuring(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table = table_of(path, FakeEngine())
    engine = FakeEngine()
    assert table_of(path, engine) == table
    assert engine.runs == 0


def test_a_build_killed_after_its_table_was_saved_leaves_no_unfinished_one(tmp_path: Path) -> None:
    path, other = tmp_path / "t.json", tmp_path / "other.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(other, FakeEngine(stop_after=900))
    journal_path(other).rename(journal_path(path))
    unfinished = journal_path(path).read_text()
    table = table_of(path, FakeEngine())
    journal_path(path).write_text(unfinished)
    os.utime(journal_path(path), (0, 0))
    assert table_of(path, FakeEngine()) == table
    assert not journal_path(path).exists()
    # One that is newer than the table is of a build that goes on.
    journal_path(path).write_text(unfinished)
    assert table_of(path, FakeEngine()) == table
    assert journal_path(path).exists()


def test_only_missing_entries_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    old = table_of(path, FakeEngine())
    grown = make_space(num_classes=9)
    engine = FakeEngine()
    table = table_of(path, engine, grown)
    # The baseline, the one new classifier, and the 32 networks of the new space.
    assert engine.prepared == 1 + 1 + 32
    assert table.space_fingerprint == grown.fingerprint
    assert table.missing_entries(grown) == ()
    assert set(old.entries) - set(table.entries) == {"linear-in24-out4"}
    shared = set(old.entries) & set(table.entries)
    assert {key: old.entries[key] for key in shared} == {key: table.entries[key] for key in shared}
    assert table.entries["linear-in24-out9"].latency_ms == pytest.approx(1e-4 * (24 * 9 + 9))


def test_a_table_of_another_device_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table_of(path, FakeEngine())
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"latency table .*engine\.version was '1' and is '2'"):
        table_of(path, FakeEngine(version="2"))
    path.write_bytes(before[:200])
    with pytest.raises(UserError, match="already exists; delete it"):
        table_of(path, FakeEngine())
    assert path.read_bytes() == before[:200]


def test_a_restricted_space_measures_only_its_layers(tmp_path: Path) -> None:
    restricted = make_space().restrict({"kernel_size": [3]})
    table = table_of(tmp_path / "t.json", FakeEngine(), restricted)
    assert set(table.entries) == {spec.key for spec in distinct_layers(restricted)}
    assert table.missing_entries(make_space())


def test_many_programs_are_prepared_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = table_of(tmp_path / "whole.json", FakeEngine())
    monkeypatch.setattr("latency_tables.measuring.rounds.CHUNK_WORKLOADS", 7)
    table = table_of(tmp_path / "t.json", FakeEngine())
    assert comparable(table) == comparable(whole)
    monkeypatch.setattr("latency_tables.measuring.rounds.CHUNK_WORKLOADS", 1000)
    monkeypatch.setattr("latency_tables.measuring.rounds.CHUNK_PARAMETERS", 20_000)
    assert comparable(table_of(tmp_path / "p.json", FakeEngine())) == comparable(whole)


def test_progress_counts_up_to_its_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        seen.append((done, total))

    measure(make_space(), DEVICE, tmp_path / "t.json", seed=3, progress=progress, engine=FakeEngine())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


def test_unfinished_measurements_are_readable_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(path, FakeEngine(stop_after=900))
    header, *visits = map(json.loads, journal_path(path).read_text().splitlines())
    assert header["device"]["name"] == "fake"
    assert all(len(visit["runs_ms"]) == 2 for visit in visits)


def test_an_unwritable_place_is_an_error_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    engine = FakeEngine()
    with pytest.raises(UserError, match="Could not write"):
        table_of(tmp_path / "file" / "t.json", engine)
    assert engine.runs == 0


def test_a_space_that_is_too_small_is_an_error(tmp_path: Path) -> None:
    stage = StageSpec(8, 2, (1,), (3,), (2, 3), "relu", False)
    space = StagedSpace("two", "mobilenet_v3", (16,), 8, 2, (stage,), (16, 24))
    with pytest.raises(UserError, match=r"gave 2 distinct networks; .* need 18"):
        table_of(tmp_path / "t.json", FakeEngine(), space)
    with pytest.raises(UserError, match="are 1 and 16; expected at least 2"):
        measure(space, DEVICE, tmp_path / "t.json", seed=3, num_calibration=1, engine=FakeEngine())


def test_chosen_networks_are_distinct_reproducible_and_spread(tiny_space: StagedSpace) -> None:
    chosen = [choose_networks(tiny_space, 5, 16, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    fitted, held_out = chosen[0]
    assert len(set(fitted + held_out)) == 21
    assert fitted[0].resolution < fitted[-1].resolution


def test_affine_fit_matches_numpy_and_never_falls() -> None:
    rng = np.random.default_rng(0)
    sums = rng.uniform(1, 5, 9)
    measured = 1.3 * sums - 0.2 + rng.normal(0, 0.05, 9)
    # numpy weighs residuals, not their squares: relative errors are residuals over the measurement.
    expected = tuple(np.polyfit(sums, measured, 1, w=1 / measured))
    assert fit_affine(list(sums), list(measured)) == pytest.approx(expected)
    assert fit_affine([1.0, 2.0, 3.0], [4.0, 4.0, 4.0])[0] == pytest.approx(2.0)
    falling_scale, falling_offset = fit_affine([1.0, 2.0, 3.0], [6.0, 4.0, 2.0])
    assert falling_scale > 0 and falling_offset == 0
    assert fit_affine([2.0, 2.0], [4.0, 4.0]) == (2.0, 0.0)


def test_an_affine_fit_is_positive_for_every_network_of_the_space() -> None:
    # Noise of tiny programs: a steep line that would give smaller networks a negative latency.
    sums, measured = [1.0, 1.1, 1.2], [1.0, 2.6, 3.9]
    scale, offset = fit_affine(sums, measured)
    assert scale * 1.0 + offset > 0 > scale * 0.9 + offset
    scale, offset = fit_affine(sums, measured, smallest_sum_ms=0.9)
    assert scale > 0 and offset == 0
    assert fit_affine(sums, measured, smallest_sum_ms=0.99)[1] < 0
