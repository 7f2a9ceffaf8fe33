"""Kits of a few whole networks: made, measured by their own program, and made into tables."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latency_tables.measuring.plan import network_key, plan_table
from latency_tables.remote.kit import make_table_kit
from latency_tables.remote.manifest import measures_networks
from latency_tables.remote.network_kit import make_few_networks_kit, table_from_network_kit
from latency_tables.remote.results import table_from_kit
from latency_tables.table.device import DeviceSpec
from latency_tables.transfer.choice import choose_networks
from latency_tables.transfer.columns import Columns
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

pytestmark = pytest.mark.timing

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

DEVICE = DeviceSpec("there", "onnx_runtime", rounds=2, runs_per_visit=2, warmup_runs=1, processes=1)


def make_space() -> StagedSpace:
    stages = (StageSpec(8, 2, (1, 2), (3, 5), (2.0, 3.0), "relu", False),)
    return StagedSpace("kit", "mobilenet_v3", (8, 12), 8, 2, stages, (16, 24), num_classes=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that was not measured yet."""
    folder = tmp_path_factory.mktemp("kits") / "made"
    info = make_few_networks_kit(make_space(), DEVICE, folder, 6, seed=3)
    assert info.num_programs == 6
    return folder


@pytest.fixture(scope="module")
def measured(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that was measured."""
    folder = tmp_path_factory.mktemp("kits") / "measured"
    shutil.copytree(made, folder)
    done = subprocess.run([sys.executable, str(folder / "measure.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_list_names_each_network_and_its_model(made: Path) -> None:
    configs = choose_networks(Columns(make_space()), 6, 3)
    with (made / "networks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == [config.id for config in configs]
    for row, config in zip(rows, configs, strict=True):
        assert make_space().read(json.loads(row["config"])) == config and row["latency_ms"] == ""
        session = onnxruntime.InferenceSession(gzip.decompress((made / row["model"]).read_bytes()))
        assert session.get_inputs()[0].shape[2:] == [config.resolution, config.resolution]


def test_the_same_kit_is_not_written_twice(made: Path) -> None:
    before = (made / "networks.csv").stat().st_mtime_ns
    make_few_networks_kit(make_space(), DEVICE, made, 6, seed=3)
    assert (made / "networks.csv").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="exists already"):
        make_few_networks_kit(make_space(), DEVICE, made, 7, seed=3)


def test_a_measured_kit_becomes_a_table(measured: Path) -> None:
    space = make_space()
    assert measures_networks(measured)
    table = table_from_network_kit(measured, space)
    assert table.engine["engine"] == "ONNX Runtime" and len(table.engine["kit"]) == 64
    assert table.device.name == "there" and table.seed == 3
    configs = choose_networks(Columns(space), 6, 3)
    values = json.loads((measured / "measurements.json").read_text())
    for config, network in zip(configs, table.calibration.networks, strict=True):
        runs = [r for v in values["visits"] if v[1] == network_key(space, config) for r in v[2]]
        assert network.id == config.id and 0.2 * min(runs) <= network.measured_ms <= max(runs)
    assert (table.estimator(space, max_table_error=1e9)(space.sample(20, np.random.default_rng(0))) > 0).all()


def test_a_kit_of_the_other_kind_is_refused(made: Path, measured: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is for 'networks'; this needs one for 'table'"):
        table_from_kit(measured, make_space())
    space = make_space().restrict({"resolution": [8]})
    make_table_kit(plan_table(space, DEVICE, 0, 2, 2), tmp_path / "layers")
    assert not measures_networks(tmp_path / "layers")
    with pytest.raises(UserError, match=r"is for 'table'; this needs one for 'networks'"):
        table_from_network_kit(tmp_path / "layers", make_space())
    with pytest.raises(UserError, match="measured other choices"):
        table_from_network_kit(measured, space)
    with pytest.raises(UserError, match="kit's measurements"):
        table_from_network_kit(made, make_space())
    with pytest.raises(UserError, match="There are 3 networks; expected 5"):
        make_few_networks_kit(make_space(), DEVICE, tmp_path / "few", 3)
