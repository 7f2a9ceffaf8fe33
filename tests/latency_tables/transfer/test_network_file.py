from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latency_tables.table.amounts import AMOUNTS
from latency_tables.table.calibration import Calibration, MeasuredNetwork, Validation
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import ImportedTiming
from latency_tables.transfer.choice import choose_networks
from latency_tables.transfer.columns import Columns
from latency_tables.transfer.network_file import network_list, read_network_latencies, table_from_file
from latency_tables.transfer.sources import read_sources
from ofa.architecture.cost import compile_cost
from ofa.architecture.lowering import distinct_layers
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

PHONE = DeviceSpec("phone", "imported", "other", precision="other")


@pytest.fixture
def space() -> StagedSpace:
    stages = (StageSpec(8, 2, (1, 2, 3), (3, 5), (2, 3), "relu", False),)
    return StagedSpace("small", "mobilenet_v3", (12, 16, 20, 24), 8, 2, stages, (16, 24), num_classes=4)


def filled_in(space: StagedSpace, latency: Callable[[int], str]) -> str:
    """The list of ten networks with the latency of each number."""
    configs = choose_networks(Columns(space), 10, 0)
    rows = list(csv.reader(io.StringIO(network_list(configs, [f"{i}.onnx.gz" for i in range(10)]))))
    assert rows[0] == ["network", "config", "model", "latency_ms"]
    assert [row[0] for row in rows[1:]] == [config.id for config in configs]
    file = io.StringIO()
    csv.writer(file).writerows([rows[0], *([*row[:3], latency(i)] for i, row in enumerate(rows[1:]))])
    return file.getvalue()


def test_a_filled_in_list_is_read(space: StagedSpace, tmp_path: Path) -> None:
    path = tmp_path / "networks.csv"
    path.write_text("\ufeff" + filled_in(space, lambda number: f" {1.5 + number} "), encoding="utf-8")
    networks = read_network_latencies(path, space)
    assert tuple(network.config for network in networks) == choose_networks(Columns(space), 10, 0)
    assert [network.latency_ms for network in networks] == [1.5 + number for number in range(10)]


def test_a_table_covers_the_resolutions_between_those_of_its_networks(
    space: StagedSpace, tmp_path: Path
) -> None:
    path = tmp_path / "networks.csv"
    path.write_text(filled_in(space.restrict({"resolution": [12, 20]}), lambda number: f"{2 + number}"))
    table = table_from_file(path, space, PHONE)
    assert table.covered_resolutions(space) == (12, 16, 20)
    assert table.engine["engine"] == "imported" and table.seed is None and table.device == PHONE
    assert table.transfer is not None and len(table.transfer.measurements) == 64
    assert len(table.calibration.networks) == 10


def test_the_networks_of_a_table_weight_its_layers_anew(space: StagedSpace, tmp_path: Path) -> None:
    columns = Columns(space)
    layers = [spec.key for spec in distinct_layers(space)]
    entries = {key: ImportedTiming(0.01 + number % 7 / 100) for number, key in enumerate(layers)}
    near = LatencyTable(
        device=DeviceSpec("near", "pytorch"),
        engine={"engine": "fake", "processor": "a chip"},
        method="computed",
        date="2024-01-02T03:04:05+00:00",
        seed=7,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=Calibration(1.0, 0.0, ()),
        validation=None,
        entries=dict(entries),
    )
    # Depthwise convolutions take longer in networks than between slices.
    configs = choose_networks(columns, 12, 0)
    genomes = space.genomes(configs)
    depthwise = compile_cost(space, AMOUNTS["depthwise, partial vectors"])
    measured = near.total(space)(genomes) + 2e-5 * depthwise(genomes)
    networks = [
        MeasuredNetwork(c.id, c.to_dict(), float(ms), 1.0, 0.1)
        for c, ms in zip(configs, measured, strict=True)
    ]
    path = tmp_path / "near.json"
    near = replace(
        near,
        calibration=Calibration(1.0, 0.0, tuple(networks[:4])),
        validation=Validation.of(networks[4:], 0.5),
    )
    near.save(path)
    table = table_from_file(path, space, PHONE, read_sources(str(path), space))
    others = space.sample(50, np.random.default_rng(0))
    expected = near.total(space)(others) + 2e-5 * depthwise(others)
    np.testing.assert_allclose(table.estimator(space)(others), expected, rtol=1e-6)
    assert (table.device, table.engine, table.seed) == (near.device, near.engine, 7)
    assert table.validation is not None and len(table.validation.networks) == 12
    assert table.validation.repeatability_percent == 0.5
    replace(near, calibration=Calibration(1.0, 0.0, ()), validation=None).save(path)
    with pytest.raises(
        UserError, match="'near' has no measured networks of space 'small' at 12, 16, 20, 24 px"
    ):
        table_from_file(path, space, PHONE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("latency_ms", "ms"), "lacks the columns latency_ms"),
        (lambda text: text.splitlines()[0], "there are none"),
        (lambda text: text.replace("7.5", "fast"), r"line \d+: latency_ms is 'fast'"),
        (lambda text: text.replace("7.5", "7,5"), r"line \d+: there are more cells than columns"),
        (lambda text: text.replace("7.5", ""), r"line \d+: latency_ms is empty"),
        (lambda text: text.replace("7.5", "-1"), r"line \d+: Network \w+ takes -1.0 ms"),
        (lambda text: text.replace("7.5", "nan"), r"line \d+: Network \w+ takes nan ms"),
        (
            lambda text: text.replace('{""resolution', '{""resolutions'),
            r"(\nline \d+: A sub.*){10}",
        ),
        (lambda text: text.replace('"{', '"'), r"line 2: "),
        (lambda text: "config,latency_ms\n[3],7\n", "line 2: config is .*; expected an object"),
        (lambda text: 'config,latency_ms\n"{,7\n', "no CSV file"),
    ],
)
def test_a_wrong_file_is_refused_by_line(
    space: StagedSpace, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "networks.csv"
    text = filled_in(space, lambda number: f"{number + 2.5}")
    changed = change(text)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(UserError, match=message) as caught:
        read_network_latencies(path, space)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(space: StagedSpace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No file of network latencies at .*gone\.csv"):
        table_from_file(tmp_path / "gone.csv", space, PHONE)
