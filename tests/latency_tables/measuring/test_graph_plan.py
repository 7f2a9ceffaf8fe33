"""Latency tables of users' models: exact where all sizes are measured, interpolated elsewhere, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from elastic_toys import OFFSET_MS, SCALE, CountingEngine, cost_ms, toy_supernet
from torch import Tensor, nn

from latency_tables.engines.base import Engine
from latency_tables.measuring.build import journal_path, make_table
from latency_tables.measuring.disturbance import SystemLoad
from latency_tables.measuring.duration import estimate_duration_s
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.graph_plan import GraphTables, plan_graph_table
from latency_tables.measuring.networks import measure_subnets
from latency_tables.measuring.piece_grid import piece_grid
from latency_tables.measuring.tables import measure, networks_in
from latency_tables.remote.verification import MeasureByKit, MeasureHere, choose_measure
from latency_tables.table.calibration import Validation
from latency_tables.table.device import DeviceSpec
from latency_tables.table.graph_table import GraphTable
from latency_tables.table.load import load_table
from latency_tables.table.table import LatencyTable
from ofa.common.errors import UserError
from ofa.common.progress import silent
from ofa.graph import make_elastic
from ofa.graph.supernet import GraphSupernet
from ofa.space.plain import GeneConfig

DEVICE = DeviceSpec("fake", "none", rounds=3, runs_per_visit=1, warmup_runs=0, processes=1)


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs beside the tests repeats no visits."""
    monkeypatch.setattr(
        "latency_tables.measuring.rounds.read_system_load",
        lambda: SystemLoad(time.perf_counter(), 0, 0, 0, 0),
    )


@cache
def supernet_of(*resolutions: int) -> GraphSupernet:
    return toy_supernet(*resolutions)


def networks_of(*resolutions: int) -> GraphNetworks:
    supernet = supernet_of(*resolutions)
    return GraphNetworks(supernet, supernet.space)


def validation_of(table: GraphTable) -> Validation:
    assert table.validation is not None
    return table.validation


def expected_ms(supernet: GraphSupernet, config: GeneConfig, power: float = 1.0) -> float:
    return SCALE * cost_ms(supernet.extract(config), power) + OFFSET_MS


def table_of(networks: GraphNetworks, path: Path, engine: Engine, seed: int = 0) -> GraphTable:
    table = measure(networks, DEVICE, path, seed=seed, engine=engine)
    assert isinstance(table, GraphTable)
    return table


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "t.json"
    table_of(networks_of(), path, CountingEngine(), seed=3)
    return path


def test_three_numbers_are_fitted_to_ten_networks(table_path: Path, tmp_path: Path) -> None:
    assert len(load_table(table_path).calibration.networks) == 10
    assert len(plan_graph_table(networks_of(), DEVICE, 3).calibration) == 10
    with pytest.raises(UserError, match="num_calibration and num_validation are 0 and 16; expected at least"):
        measure(networks_of(), DEVICE, tmp_path / "t.json", num_calibration=0, engine=CountingEngine())


def test_a_table_of_all_sizes_is_exact(table_path: Path) -> None:
    table, supernet = load_table(table_path), supernet_of()
    assert isinstance(table, GraphTable)
    assert table.calibration.scale == pytest.approx(SCALE)
    assert table.calibration.offset_ms == pytest.approx(OFFSET_MS)
    assert validation_of(table).max_error_percent == pytest.approx(0, abs=1e-6)
    genomes = supernet.space.all_genomes()
    expected = [expected_ms(supernet, supernet.space.config(genome)) for genome in genomes]
    np.testing.assert_allclose(table.estimator(supernet.space)(genomes), expected, rtol=1e-9)


def test_networks_pay_a_share_of_what_cold_weights_cost(tmp_path: Path) -> None:
    engine = CountingEngine(cold_ms=20.0, cold_share=0.4)
    table = table_of(networks_of(), tmp_path / "t.json", engine)
    assert table.cold_share == 0.4
    assert validation_of(table).max_error_percent == pytest.approx(0, abs=1e-6)
    assert all(table.cold_entries[key].latency_ms > entry.latency_ms for key, entry in table.entries.items())
    assert GraphTable.load(tmp_path / "t.json") == table


def test_blocks_that_are_left_out_cost_nothing(table_path: Path) -> None:
    space = supernet_of().space
    values = space.largest.to_dict()
    pair = [space.config_of({**values, "depth:blocks": depth}) for depth in (1, 2)]
    short, full = GraphTable.load(table_path).estimator(space)(space.genomes(pair))
    block_cost = 1e-4 * 2 * 16 * 16 * 9
    assert full - short == pytest.approx(SCALE * block_cost)


def test_equal_pieces_share_their_entries(table_path: Path) -> None:
    table = GraphTable.load(table_path)
    first, second = (term for term in table.terms if term.depth_gene)
    assert (first.block_index, second.block_index) == (0, 1)
    assert first.keys == second.keys
    assert len(table.entries) == len({key for term in table.terms for key in term.keys})


def test_few_programs_are_interpolated(tmp_path: Path) -> None:
    supernet, power = supernet_of(), 1.3
    tables = [
        make_table(
            GraphTables(networks_of(), DEVICE, seed=0, max_programs=count),
            DEVICE,
            tmp_path / f"{count}.json",
            progress=silent,
            engine=CountingEngine(power),
            max_table_error=math.inf,
        )
        for count in (1, 600)
    ]
    few, all_sizes = tables
    assert len(few.entries) <= len(all_sizes.entries) / 2
    assert validation_of(all_sizes).max_error_percent == pytest.approx(0, abs=1e-6)
    assert 0.01 < validation_of(few).mape_percent < 3
    genomes = supernet.space.sample(50, np.random.default_rng(0))
    exact = all_sizes.estimator(supernet.space)(genomes)
    np.testing.assert_allclose(few.estimator(supernet.space)(genomes), exact, rtol=0.1)


def test_joined_pieces_take_no_more_programs() -> None:
    networks = networks_of()
    grid = piece_grid(networks.tracer(1), networks.space)
    # The two convolutions of a block depend on the same genes, and so do the last ones with the pool.
    assert len(grid.terms) < 6
    assert all(len(term.keys) <= 9 for term in grid.terms)


def test_an_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(KeyboardInterrupt):
        table_of(networks_of(), path, CountingEngine(stop_after=260), seed=3)
    assert journal_path(path).exists() and not path.exists()
    engine = CountingEngine()
    resumed = table_of(networks_of(), path, engine, seed=3)
    whole_engine = CountingEngine()
    whole = table_of(networks_of(), tmp_path / "w.json", whole_engine, seed=3)
    assert replace(resumed, date="") == replace(whole, date="")
    assert engine.num_runs < whole_engine.num_runs
    assert not journal_path(path).exists()


def test_a_complete_table_is_kept_and_other_resolutions_extend_it(tmp_path: Path) -> None:
    networks, path = networks_of(12, 16), tmp_path / "t.json"
    small = replace(networks, space=networks.space.restrict({"resolution": [12]}))
    first = table_of(small, path, CountingEngine())
    engine = CountingEngine()
    assert table_of(small, path, engine) == first and not engine.num_runs
    with pytest.raises(UserError, match="lacks choices of space 'toy', of resolution; it covers .* 12. Make"):
        first.estimator(networks.space)
    assert first.covered_space(networks.space) == small.space
    large = replace(networks, space=networks.space.restrict({"resolution": [16]}))
    both = table_of(large, path, engine)
    assert both.covered_resolutions(networks.space) == (12, 16)
    assert set(first.entries) < set(both.entries)
    assert {key: both.entries[key] for key in first.entries} == first.entries
    assert {key: both.cold_entries[key] for key in first.entries} == first.cold_entries


def test_genomes_beyond_the_measured_sizes_have_no_latency(tmp_path: Path) -> None:
    networks = networks_of(12, 16)
    small = networks.space.restrict({"resolution": [12]})
    table = table_of(replace(networks, space=small), tmp_path / "t.json", CountingEngine())
    values = table.estimator(small)(networks.space.genomes([small.largest, networks.space.largest]))
    assert np.isnan(values).tolist() == [False, True]


class Concatenated(nn.Module):
    """A convolution that reads four others, whose widths vary alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.branches = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(4))
        self.mix, self.head = nn.Conv2d(64, 16, 1), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images).relu()
        maps = torch.cat([branch(stem) for branch in self.branches], 1).relu()
        logits: Tensor = self.head(self.mix(maps).relu().mean((2, 3)))
        return logits


def test_widths_of_many_inputs_grow_together(tmp_path: Path) -> None:
    supernet = make_elastic(Concatenated().eval(), torch.randn(2, 3, 8, 8), name="concatenated")
    networks = GraphNetworks(supernet, supernet.space)
    table = table_of(networks, tmp_path / "t.json", CountingEngine())
    assert max(len(axis.genes) for term in table.terms for axis in term.axes) > 1
    # The cost is linear in the sum of the widths.
    assert validation_of(table).max_error_percent == pytest.approx(0, abs=1e-6)


class TwoInputs(nn.Module):
    """Reads two images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 4, 3)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(images + others).relu())
        return result


class InParts(nn.Module):
    """A body that can be captured within a forward that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))
        self.other = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.body(images)
        if maps.sum() > 0:
            maps = self.other(maps)
        return maps


IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("network", "example", "text"),
    [
        (InParts, IMAGES, "InParts has no graph of the whole network, which latency tables need"),
        (TwoInputs, (IMAGES, IMAGES), r"have the shapes \[2, 3, 12, 12\], \[2, 3, 12, 12\]; expected one"),
    ],
)
def test_networks_without_tables_say_why(
    network: Callable[[], nn.Module], example: Tensor | tuple[Tensor, ...], text: str
) -> None:
    supernet = make_elastic(network().eval(), example)
    with pytest.raises(UserError, match=text):
        plan_graph_table(GraphNetworks(supernet, supernet.space), DEVICE, 0)


def test_tables_of_another_kind_are_refused(table_path: Path) -> None:
    with pytest.raises(UserError, match="is of a user's model; this works with tables of the published"):
        LatencyTable.load(table_path)
    families = (
        Path(__file__).parents[3] / "latency_tables" / "data" / "mobilenet_v3_tiny" / "cascadelake.json"
    )
    with pytest.raises(UserError, match="is not of a user's model"):
        GraphTable.load(families)
    assert isinstance(load_table(families), LatencyTable)


def test_damaged_tables_are_named(table_path: Path) -> None:
    table = GraphTable.load(table_path)
    key = next(iter(table.entries))
    others = {name: timing for name, timing in table.entries.items() if name != key}
    with pytest.raises(UserError, match="The entries lack conv2d"):
        replace(table, entries=others)
    with pytest.raises(UserError, match="The entries lack conv2d"):
        replace(table, cold_entries=others)
    with pytest.raises(UserError, match="cold_share is 1.5; expected a number from 0 to 1"):
        replace(table, cold_share=1.5)
    with pytest.raises(UserError, match="choices lack the genes"):
        replace(table, choices={})


def test_verified_searches_measure_a_user_s_model_here_alone(table_path: Path, tmp_path: Path) -> None:
    table, networks = load_table(table_path), networks_of()
    here = choose_measure(table, DEVICE, networks, 2, tmp_path / "kit")
    assert isinstance(here, MeasureHere) and not isinstance(here, MeasureByKit)
    elsewhere = replace(DEVICE, accelerator="other")
    with pytest.raises(UserError, match="is another machine, where kits measure; .* published families"):
        choose_measure(table, elsewhere, networks, 2, tmp_path / "kit")


@pytest.mark.usefixtures("forked_measuring")
def test_sub_networks_and_tables_are_measured_by_an_engine(tmp_path: Path) -> None:
    supernet = supernet_of()
    device = DeviceSpec("cpu", "pytorch", rounds=2, runs_per_visit=1, warmup_runs=0, processes=1)
    networks = networks_in(supernet, supernet.space)
    assert estimate_duration_s(networks, device) > 0
    table = measure(networks, device, tmp_path / "t.json", num_calibration=2, num_validation=2)
    assert all(timing.latency_ms > 0 for timing in table.entries.values())
    space = supernet.space
    latencies = measure_subnets(networks, [space.smallest, space.largest], device, processes=1)
    assert [len(values) for values in latencies] == [1, 1]
