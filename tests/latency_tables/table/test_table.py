from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency_tables.table.calibration import Calibration, MeasuredNetwork, Validation
from latency_tables.table.device import DeviceSpec
from latency_tables.table.limit import TableLimit
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import MIN_MS, Timing, standard_error, summarize
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import distinct_layers, lower
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec


@pytest.fixture
def space() -> StagedSpace:
    stages = (
        StageSpec(8, 2, (1, 2, 3), (3, 5), (2, 3), "relu", False),
        StageSpec(16, 2, (1, 2), (3,), (2, 4), "hard_swish", True),
    )
    return StagedSpace("small", "mobilenet_v3", (16, 20), 8, 2, stages, (16, 24), num_classes=4)


def cost_ms(spec: LayerSpec) -> float:
    """Some number that differs between layers."""
    return 0.01 + sum(map(ord, spec.key)) / 1e5


@pytest.fixture
def table(space: StagedSpace) -> LatencyTable:
    network = MeasuredNetwork(space.largest.id, space.largest.to_dict(), 2.0, 2.1, 0.1)
    return LatencyTable(
        device=DeviceSpec("here", "pytorch"),
        engine={"engine": "fake", "version": "1"},
        method="computed",
        date="2024-01-02T03:04:05+00:00",
        seed=7,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=Calibration(1.25, 0.375, (network,)),
        validation=Validation(5.0, 5.0, 0.9, (network,)),
        entries={spec.key: Timing(cost_ms(spec), 1.0, 0.1, 9) for spec in distinct_layers(space)},
    )


def without(table: LatencyTable, keys: set[str]) -> LatencyTable:
    return dataclasses.replace(table, entries={k: v for k, v in table.entries.items() if k not in keys})


def test_estimator_is_the_calibrated_sum_of_the_layers(space: StagedSpace, table: LatencyTable) -> None:
    genomes = space.sample(200, np.random.default_rng(0))
    estimates = table.estimator(space)(genomes)
    expected = [1.25 * sum(map(cost_ms, lower(space, space.config(g)))) + 0.375 for g in genomes]
    np.testing.assert_allclose(estimates, expected, rtol=1e-12)
    assert table.network_ms(lower(space, space.largest), space.largest.resolution) == pytest.approx(
        table.estimator(space)(space.genomes([space.largest]))[0]
    )


def test_a_network_with_layers_that_the_table_lacks_is_refused(
    space: StagedSpace, table: LatencyTable
) -> None:
    specs = lower(space, space.largest)
    holed = without(table, {specs[1].key, specs[3].key})
    with pytest.raises(UserError, match="lacks 2 layers of this network") as caught:
        holed.network_ms(specs, space.largest.resolution)
    assert specs[1].key in str(caught.value) and specs[3].key in str(caught.value)


def test_save_and_load_give_the_same_table(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "deep" / "table.json")
    assert LatencyTable.load(tmp_path / "deep" / "table.json") == table
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table.json"]


def test_missing_entries_are_named_all_at_once(space: StagedSpace, table: LatencyTable) -> None:
    keys = [spec.key for spec in distinct_layers(space)]
    gone = {keys[0], keys[5], keys[-1]}
    holed = without(table, gone)
    assert set(holed.missing_entries(space)) == gone
    with pytest.raises(UserError, match="lacks 3 layers") as caught:
        holed.estimator(space)
    assert all(key in str(caught.value) for key in gone)


def test_long_lists_of_missing_entries_are_counted(space: StagedSpace, table: LatencyTable) -> None:
    keys = [spec.key for spec in distinct_layers(space)]
    assert len(keys) > 23
    with pytest.raises(UserError, match=f"lacks {len(keys)} layers") as caught:
        without(table, set(keys)).estimator(space)
    assert keys[19] in str(caught.value)
    assert all(key in str(caught.value) for key in keys)


def test_a_restricted_space_needs_only_its_own_layers(space: StagedSpace, table: LatencyTable) -> None:
    restricted = space.restrict({"resolution": [16], "kernel_size": [3]})
    needed = {spec.key for spec in distinct_layers(restricted)}
    partial = without(table, set(table.entries) - needed)
    genomes = restricted.sample(50, np.random.default_rng(1))
    np.testing.assert_array_equal(partial.estimator(restricted)(genomes), table.estimator(space)(genomes))
    with pytest.raises(UserError, match="lacks"):
        partial.estimator(space)


def test_a_table_of_another_space_is_refused_naming_both(space: StagedSpace, table: LatencyTable) -> None:
    other = dataclasses.replace(space, name="other", num_classes=5)
    with pytest.raises(UserError) as caught:
        table.estimator(other)
    for text in ("'small'", space.fingerprint, "'other'", other.fingerprint):
        assert text in str(caught.value)
    assert (caught.value.stage, caught.value.settings) == ("measure", {"device": "here"})


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No latency table at .*gone\.json") as caught:
        LatencyTable.load(tmp_path / "gone.json")
    assert caught.value.stage == "measure"


def test_truncated_file_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    path.write_text(path.read_text()[:-100])
    with pytest.raises(UserError, match="truncated"):
        LatencyTable.load(path)


def test_other_schema_version_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    dataclasses.replace(table, schema_version=99).save(path)
    with pytest.raises(UserError, match="schema version 99; this program reads version 2"):
        LatencyTable.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -0.1, "fast", None])
def test_impossible_entries_are_refused(value: Any, table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    values = json.loads(path.read_text())
    key = list(values["entries"])[3]
    values["entries"][key]["latency_ms"] = value
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"not valid|in place of a number at entries\.") as caught:
        LatencyTable.load(path)
    assert key in str(caught.value)


def test_impossible_calibration_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    values = json.loads(path.read_text())
    values["calibration"]["scale"] = -1.0
    del values["seed"]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"seed is missing.*|scale.*") as caught:
        LatencyTable.load(path)
    assert "scale" in str(caught.value)
    assert "seed is missing" in str(caught.value)


def test_a_table_that_is_too_wrong_is_not_used_silently(
    space: StagedSpace, table: LatencyTable, tmp_path: Path
) -> None:
    assert table.validation is not None
    wrong = dataclasses.replace(table, validation=dataclasses.replace(table.validation, mape_percent=12.3))
    with pytest.raises(UserError, match=r"'here' has an error of 12\.3 % .*at most 10 %.*max_table_error=13"):
        wrong.estimator(space)
    assert wrong.has_error_within(12.3) and not wrong.has_error_within(12.2)
    assert wrong.estimator(space, max_table_error=12.5)(space.genomes([space.largest]))[0] > 0
    with pytest.raises(UserError, match="at most 4.5 % is allowed"):
        table.estimator(space, max_table_error=4.5)
    with pytest.raises(UserError, match="max_table_error is -1; expected"):
        table.estimator(space, max_table_error=-1)
    dataclasses.replace(wrong, validation=None).estimator(space)
    wrong.save(tmp_path / "t.json")
    with pytest.raises(UserError, match=r"an error of 12\.3 %"):
        TableLimit(str(tmp_path / "t.json"), 1.0).estimator(space)
    TableLimit(str(tmp_path / "t.json"), 1.0).estimator(space, 20.0)


def test_the_identity_is_the_same_after_a_file(table: LatencyTable, tmp_path: Path) -> None:
    pinned = dataclasses.replace(table, device=DeviceSpec("here", "pytorch", affinity=(0, 1)))
    pinned.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == pinned
    assert json.loads(json.dumps(pinned.identity)) == pinned.identity
    with pytest.raises(UserError, match=r"affinity was \(0, 1\) and is None"):
        pinned.check_device(table.device)


def test_latency_is_the_mean_of_the_processes_lower_quartiles() -> None:
    # The lower quartile of five values is the second smallest.
    assert summarize([[1.0, 2.0, 3.0, 4.0, 5.0], [11.0, 12.0, 13.0, 14.0, 15.0]]).latency_ms == 7.0
    assert summarize([[1.0, 2.0, 3.0, 4.0, 5.0]], references_ms=0.25) == Timing(1.75, 3.0, 2.0, 5)


def test_a_layer_never_costs_less_than_nothing() -> None:
    assert summarize([[0.01]], references_ms=0.02).latency_ms == MIN_MS


def test_the_standard_error_is_that_of_a_quartile() -> None:
    # Of n normal values: sqrt(p (1 - p) / n) / density; at the lower quartile the density is 0.3178.
    rng = np.random.default_rng(0)
    errors = [standard_error(list(rng.normal(10, 1, 400))) for _ in range(200)]
    assert np.mean(errors) == pytest.approx((0.25 * 0.75 / 400) ** 0.5 / 0.3178, rel=0.1)
    assert standard_error([1.0, 1.1, 1.0, 1.2]) == float("inf")
    assert standard_error([2.0] * 5) == 0.0
