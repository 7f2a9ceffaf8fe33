"""The tables that come with the project serve the spaces and devices that they are named after."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from made_predictor import save_predictor
from search_for_device import search_for_device

from latency_tables.table.device import DeviceSpec
from latency_tables.table.shipped import DATA, find_table
from latency_tables.table.table import LatencyTable
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.shipped import CONF
from ofa.launch import compose_group
from ofa.runs.directory import RunDirectory
from ofa.space.staged import StagedSpace

TABLES = sorted(DATA.glob("*/*.json"))


def space_of(path: Path) -> StagedSpace:
    return build(StagedSpace, compose_group("space", path.parent.name))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_tables_fit_their_space_and_device(path: Path) -> None:
    table, space = LatencyTable.load(path), space_of(path)
    assert table.device.name == path.stem
    restricted = space.restrict({"resolution": table.covered_resolutions(space)})
    device = build(DeviceSpec, compose_group("device", path.stem))
    assert table.validation is not None and len(table.validation.networks) >= 16
    latencies = table.estimator(restricted, device)(restricted.sample(50, np.random.default_rng(0)))
    assert (latencies > 0).all()


def test_the_spaces_with_tables() -> None:
    published = {"mobilenet_v2", "mobilenet_v3", "mobilenet_v3_tiny", "proxyless_nas", "resnet50"}
    assert {path.parent.name for path in TABLES} == published
    assert {path.stem for path in (CONF / "space").glob("*.yaml")} >= published


def test_there_are_tables_of_several_engines() -> None:
    engines = {(path.parent.name, json.loads(path.read_text())["device"]["engine"]) for path in TABLES}
    for space in ("mobilenet_v3", "mobilenet_v3_tiny"):
        assert {engine for name, engine in engines if name == space} >= {
            "pytorch",
            "onnx_runtime",
            "openvino",
        }


def test_a_search_takes_a_shipped_table_where_the_run_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = save_predictor(tmp_path / "shipped", "mobilenet_v3_tiny")
    common = (f"runs_dir={tmp_path}", "run_name=shipped", "space=mobilenet_v3_tiny", "search.generations=3")
    _, result = search_for_device.run(
        *common, "device=cascadelake_onnx", "limits.latency_ms=100", "name=found"
    )
    assert space.contains(result.best.config)
    used = json.loads((tmp_path / "shipped" / "search" / "found.json").read_text())["provenance"]
    assert Path(used["table"]) == DATA / space.name / "cascadelake_onnx.json"
    with pytest.raises(UserError, match="sub-networks have"):
        search_for_device.run(*common, "device=cascadelake_onnx", "limits.latency_ms=0.001")


def test_a_search_keeps_to_the_resolutions_of_a_shipped_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_predictor(tmp_path / "shipped", "mobilenet_v3")
    common = (f"runs_dir={tmp_path}", "run_name=shipped", "space=mobilenet_v3", "search.generations=2")
    _, result = search_for_device.run(*common, "device=cascadelake_onnx", "limits.latency_ms=9")
    assert result.best.config.resolution in (160, 176, 192, 208, 224)
    out = capsys.readouterr().out
    assert "MAPE 1.28 %" in out and "160, 176, 192, 208, 224 px" in out


def test_the_runs_own_table_comes_first(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "mine")
    space = build(StagedSpace, compose_group("space", "mobilenet_v3"))
    device, other = (
        build(DeviceSpec, compose_group("device", name)) for name in ("cascadelake_onnx", "my_cpu")
    )
    shipped = find_table(run, device, space)
    assert shipped == DATA / "mobilenet_v3" / "cascadelake_onnx.json"
    run.table("cascadelake_onnx").parent.mkdir(parents=True)
    run.table("cascadelake_onnx").write_text("{}")
    assert find_table(run, device, space) == run.table("cascadelake_onnx")
    threads = dataclasses.replace(other, threads=3)
    with pytest.raises(UserError, match=r"No latency table of my_cpu at .*; there are those of casc") as info:
        find_table(run, threads, space)
    assert info.value.stage == "measure"
    assert info.value.settings == {"device": "my_cpu", "device.threads": "3"}
    kit_device = dataclasses.replace(other, name="raspberry", affinity=(0, 2))
    with pytest.raises(UserError, match="No latency table of raspberry") as info:
        find_table(run, kit_device, space)
    assert info.value.settings["device.affinity"] == "[0,2]"
    assert info.value.settings["device.name"] == "raspberry"
