from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from latency_tables.table.amounts import AMOUNTS, work_kind
from latency_tables.table.calibration import Calibration
from latency_tables.table.device import DeviceSpec
from latency_tables.table.regression import left_out_ms
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import ImportedTiming
from latency_tables.table.transfer import SourceTable, Transfer
from latency_tables.transfer.choice import choose_networks
from latency_tables.transfer.columns import Columns, columns_of
from latency_tables.transfer.fitted_table import NetworkLatency, Origin, table_of_networks
from latency_tables.transfer.sources import NO_SOURCES, Sources, read_sources
from ofa.architecture.cost import compile_cost, macs, parameters
from ofa.architecture.layer import LayerSpec, Operator
from ofa.architecture.lowering import distinct_layers, lower
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

PHONE = Origin(DeviceSpec("phone", "imported", "other", precision="other"), {"engine": "imported"}, None)
UNSAVED = SourceTable("near", "fake", "fp32", "", "2024-01-02T03:04:05+00:00", "0" * 64)
"""Record of a table that is in no file."""


@pytest.fixture
def space() -> StagedSpace:
    stages = (
        StageSpec(8, 2, (1, 2, 3), (3, 5), (2, 3), "relu", False),
        StageSpec(16, 2, (1, 2), (3,), (2, 4), "hard_swish", True),
    )
    return StagedSpace("small", "mobilenet_v3", (16, 20, 24), 8, 2, stages, (16, 24), num_classes=4)


def entry_ms(spec: LayerSpec) -> float:
    """Some number that differs between layers and follows from no amount of work."""
    return 0.01 + sum(map(ord, spec.key)) % 97 / 1e3


def table_of(space: StagedSpace, name: str = "near", resolutions: tuple[int, ...] = (16, 20)) -> LatencyTable:
    covered = space.restrict({"resolution": list(resolutions)})
    return LatencyTable(
        device=DeviceSpec(name, "pytorch"),
        engine={"engine": "fake", "processor": "a chip"},
        method="computed",
        date="2024-01-02T03:04:05+00:00",
        seed=7,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=Calibration(1.25, 0.375, ()),
        validation=None,
        entries={s.key: ImportedTiming(entry_ms(s) * len(name)) for s in distinct_layers(covered)},
    )


@pytest.fixture
def sources(space: StagedSpace, tmp_path: Path) -> Sources:
    table_of(space).save(tmp_path / "near.json")
    return read_sources(str(tmp_path / "near.json"), space)


def measured(columns: Columns, weights: dict[str, float], offset_ms: float) -> list[NetworkLatency]:
    """The ten networks that would be measured, with the latencies of a device of these weights."""
    configs = choose_networks(columns, 10, 0)
    matrix = columns.matrix(columns.space.genomes(configs))
    values = matrix @ [weights.get(name, 0.0) for name in columns.names] + offset_ms
    return [NetworkLatency(c, float(v), 0.01) for c, v in zip(configs, values, strict=True)]


def test_amounts_are_those_of_the_whole_layer(space: StagedSpace) -> None:
    for spec in distinct_layers(space):
        counts = [amount(spec) for name, amount in AMOUNTS.items() if name not in ("elements", "parameters")]
        assert sum(counts) - 1 == macs(spec)
        assert AMOUNTS["parameters"](spec) == parameters(spec)
        assert AMOUNTS["elements"](spec) == sum(op.output_elements for op in spec.operators)
    block = next(s for s in distinct_layers(space) if isinstance(s, MBConvSpec) and s.squeeze_excite)
    assert {work_kind(op) for op in block.operators} == {"pointwise", "depthwise", "vectors"}
    # Both parts of a split convolution have kernels.
    pair = (Operator(8, 16, 8, 3, horizontal=(8, 1, 1)), Operator(8, 8, 16, 1, horizontal=(8, 3, 1)))
    assert [work_kind(op) for op in pair] == ["convolution", "convolution"]
    kinds = {work_kind(op) for spec in distinct_layers(space) for op in spec.operators}
    assert kinds == {"convolution", "pointwise", "depthwise", "depthwise, partial vectors", "vectors"}


def test_columns_of_a_network_are_the_sums_of_those_of_its_layers(
    space: StagedSpace, sources: Sources
) -> None:
    columns = columns_of(space, sources)
    assert columns.space.allowed_resolutions == (16, 20)
    config = columns.space.largest
    layers = [columns.of_layer(spec, config.resolution) for spec in lower(space, config)]
    np.testing.assert_allclose(columns.matrix(space.genomes([config]))[0], np.sum(layers, axis=0))
    assert columns.num_free == Columns(space).num_free == 1
    assert Columns(space).names[0] == "macs" and len(columns.names) == 1 + len(AMOUNTS)


def test_the_table_of_a_combination_of_columns_is_exact(space: StagedSpace, sources: Sources) -> None:
    columns = columns_of(space, sources)
    weights = {columns.names[0]: 1.7, "pointwise": 3.0, "layers": 2e4}
    table = table_of_networks(columns, measured(columns, weights, 0.4), PHONE)
    genomes = columns.space.sample(200, np.random.default_rng(5))
    expected = (
        1.7 * compile_cost(columns.space, lambda spec: 4 * entry_ms(spec))(genomes)
        + 3.0 * compile_cost(columns.space, AMOUNTS["pointwise"])(genomes) / 1e6
        + 2e4 * compile_cost(columns.space, AMOUNTS["layers"])(genomes) / 1e6
        + 0.4
    )
    np.testing.assert_allclose(table.estimator(columns.space)(genomes), expected, rtol=1e-6)
    assert table.covered_resolutions(space) == (16, 20)
    assert table.validation is not None and table.validation.mape_percent < 0.1


def test_the_table_says_how_it_was_made(space: StagedSpace, sources: Sources, tmp_path: Path) -> None:
    columns = columns_of(space, sources)
    table = table_of_networks(columns, measured(columns, {columns.names[0]: 2.0}, 0.1), PHONE)
    assert table.transfer is not None
    (record,) = table.transfer.sources
    assert (record.device, record.engine, record.processor) == ("near", "fake", "a chip")
    assert table.transfer.weights[columns.names[0]] == pytest.approx(2.0)
    assert table.transfer.strength is None
    assert table.transfer.text == f"from the table of near ({record.sha256[:12]})"
    assert "10 left-out whole networks" in table.error_text
    table.save(tmp_path / "phone.json")
    assert LatencyTable.load(tmp_path / "phone.json") == table
    assert table.remedy["stage"] == "measure" and table.remedy["settings"]["device.name"] == "phone"
    without = table_of_networks(Columns(space), measured(Columns(space), {"macs": 2.0}, 0.1), PHONE)
    assert without.transfer is not None and without.transfer.text == "from no table"
    assert table.identity != without.identity


def test_the_stated_error_is_that_of_left_out_networks(space: StagedSpace, sources: Sources) -> None:
    columns = columns_of(space, sources)
    rng = np.random.default_rng(2)
    networks = [
        dataclasses.replace(network, latency_ms=network.latency_ms * float(np.exp(0.05 * rng.normal())))
        for network in measured(columns, {columns.names[0]: 2.0}, 0.1)
    ]
    table = table_of_networks(columns, networks, PHONE)
    assert table.validation is not None and table.validation.cross_validated
    values = np.array([network.latency_ms for network in networks])
    matrix = columns.matrix(columns.space.genomes([network.config for network in networks]))
    predictions = left_out_ms(matrix, 1, values)
    assert [n.predicted_ms for n in table.validation.networks] == predictions.tolist()
    assert table.validation.mape_percent == pytest.approx(100 * np.mean(np.abs(predictions / values - 1)))
    fitted = table.estimator(columns.space)(columns.space.genomes([n.config for n in networks]))
    np.testing.assert_allclose([n.predicted_ms for n in table.calibration.networks], fitted)
    with pytest.raises(UserError, match="with more networks or"):
        table.check_error(1e-9)


def test_entries_of_a_table_by_resolution_stay_apart(space: StagedSpace) -> None:
    near = table_of(space)
    key = lower(space, space.smallest)[-1].key
    entries = {k: v for k, v in near.entries.items() if k != key}
    entries |= {f"{key}@16": ImportedTiming(0.5), f"{key}@20": ImportedTiming(0.25)}
    sources = Sources((dataclasses.replace(near, entries=entries),), (UNSAVED,))
    columns = columns_of(space, sources)
    table = table_of_networks(columns, measured(columns, {columns.names[0]: 2.0}, 0.1), PHONE)
    assert table.entries[f"{key}@16"].latency_ms == pytest.approx(1.0)
    assert table.entries[f"{key}@20"].latency_ms == pytest.approx(0.5)


def test_several_tables_cover_what_all_of_them_do(space: StagedSpace, tmp_path: Path) -> None:
    table_of(space).save(tmp_path / "a.json")
    table_of(space, "farther", (20, 24)).save(tmp_path / "b.json")
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    columns = columns_of(space, read_sources(paths, space))
    assert columns.num_free == 2 and columns.space.allowed_resolutions == (20,)
    table_of(space, "farther", (24,)).save(tmp_path / "b.json")
    with pytest.raises(UserError, match=r"share no resolution \(near: 16, 20 px; farther: 24 px\)"):
        columns_of(space, read_sources(paths, space))
    with pytest.raises(UserError, match="same table twice"):
        read_sources([paths[0], paths[0]], space)


def test_unfit_sources_are_refused(space: StagedSpace, sources: Sources, tmp_path: Path) -> None:
    other = dataclasses.replace(space, name="other", num_classes=5)
    with pytest.raises(UserError, match="was made for space 'small'"):
        columns_of(other, sources)
    with pytest.raises(UserError, match="lacks"):
        columns_of(space.restrict({"resolution": [24]}), sources)
    with pytest.raises(UserError, match=r"No latency table at .*gone\.json"):
        read_sources(str(tmp_path / "gone.json"), space)
    (tmp_path / "cut.json").write_text('{"schema_version": 2')
    with pytest.raises(UserError, match=r"cut\.json"):
        read_sources(str(tmp_path / "cut.json"), space)
    (tmp_path / "graph.json").write_text('{"schema_version": 1, "kind": "graph"}')
    with pytest.raises(UserError, match="of a user's model"):
        read_sources(str(tmp_path / "graph.json"), space)
    assert read_sources(None, space) == NO_SOURCES


def test_a_shipped_table_is_named_by_its_device(full_space: StagedSpace) -> None:
    sources = read_sources("cascadelake_onnx", full_space)
    assert sources.records[0].device == "cascadelake_onnx" and len(sources.records[0].sha256) == 64


def test_wrong_networks_are_refused(space: StagedSpace, sources: Sources) -> None:
    columns = columns_of(space, sources)
    networks = measured(columns, {columns.names[0]: 2.0}, 0.1)
    with pytest.raises(UserError, match="was measured twice"):
        table_of_networks(columns, [*networks, networks[0]], PHONE)
    with pytest.raises(UserError, match=r"is not one of space 'small' at 16, 20 px"):
        table_of_networks(columns, [*networks, NetworkLatency(space.largest, 1.0)], PHONE)
    with pytest.raises(UserError, match="4 networks; expected 5 to"):
        table_of_networks(columns, networks[:4], PHONE)
    for latency_ms in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"Network {space.largest.id} takes {latency_ms} ms"):
            NetworkLatency(space.largest, latency_ms)
    with pytest.raises(UserError, match="weights of macs"):
        Transfer((), {"macs": -1.0}, None)
