"""Commands of devices: a table from a kit, and verified searches here and by a kit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from build_latency_table import build_latency_table
from made_predictor import save_predictor
from make_device_kit import make_device_kit
from search_for_device import search_for_device

from latency_tables.table.table import LatencyTable
from ofa.common.errors import UserError

pytest.importorskip("onnxruntime")

SPACE = ("space=mobilenet_v3_tiny", "resolutions=[20]")
EFFORT = (
    "device=my_cpu_onnx",
    "device.name=board",
    "device.rounds=3",
    "device.min_rounds=2",
    "device.runs_per_visit=2",
    "device.warmup_runs=1",
    "device.processes=1",
)
SEARCH = ("search.generations=10", "max_table_error=1000", "verification.candidates=3")


def carry_to_device(kit: Path) -> None:
    """Measure a kit as its device would."""
    done = subprocess.run([sys.executable, str(kit / "measure.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `far`: a predictor, and the latency table of a device that a kit has measured."""
    folder = tmp_path_factory.mktemp("runs")
    save_predictor(folder / "far", "mobilenet_v3_tiny")
    common = (f"runs_dir={folder}", "run_name=far", *SPACE, *EFFORT)
    networks = ("calibration_networks=3", "validation_networks=3")
    kit = make_device_kit.run(*common, *networks, f"output={folder / 'kit'}")
    assert kit.num_programs > 20
    carry_to_device(folder / "kit")
    table = folder / "far" / "latency" / "board.json"
    build_latency_table.run(*common, f"from_kit={folder / 'kit'}", f"output={table}", "max_table_error=1000")
    return folder


@pytest.fixture
def common(runs: Path) -> tuple[str, ...]:
    return (f"runs_dir={runs}", "run_name=far", *SPACE, *EFFORT, *SEARCH)


def middle_ms(runs: Path) -> float:
    """Return a latency (ms) between those of the kit's networks."""
    table = LatencyTable.load(runs / "far" / "latency" / "board.json")
    assert table.validation is not None
    return sorted(network.predicted_ms for network in table.validation.networks)[1]


def test_a_table_of_a_kit_says_so(runs: Path) -> None:
    table = LatencyTable.load(runs / "far" / "latency" / "board.json")
    assert (table.device.name, table.engine["engine"]) == ("board", "ONNX Runtime")
    assert len(table.engine["kit"]) == 64


def test_a_verified_search_by_kits_goes_there_and_back(
    runs: Path, common: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    limit = (f"limits.latency_ms={20 * middle_ms(runs)}", "verify=true", "name=carried")
    search_for_device.run(*common, *limit)
    kit = runs / "far" / "kits" / "carried"
    assert f"from_kit=[{kit}]" in capsys.readouterr().out
    carry_to_device(kit)
    _, result = search_for_device.run(*common, *limit, f"from_kit={kit}")
    report = capsys.readouterr().out
    assert "measured" in report
    saved = json.loads((runs / "far" / "search" / "carried.json").read_text())
    measured = {network["id"]: network["measured"] for network in saved["verification"]["networks"]}
    assert saved["verification"]["chosen"] == result.best.config.id
    assert measured[result.best.config.id] <= 20 * middle_ms(runs)


def test_a_verified_search_on_this_machine_measures(
    runs: Path, common: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    table = runs / "far" / "latency" / "here.json"
    table_settings = ("device.name=here", f"output={table}", "calibration_networks=3", "max_table_error=1000")
    build_latency_table.run(*common[:-3], *table_settings)
    effort = ("device.name=here", "verify=true", "verification.processes=1", "verification.turns=1")
    _, result = search_for_device.run(*common, *effort, "limits.latency_ms=1000", "name=verified")
    assert result.best.values["latency_ms"] <= 1000
    assert "measured" in capsys.readouterr().out


def test_mistakes_with_kits_are_named(runs: Path, common: tuple[str, ...]) -> None:
    limit = "limits.latency_ms=1000"
    with pytest.raises(UserError, match="add verify=true"):
        search_for_device.run(*common, limit, f"from_kit={runs / 'kit'}")
    with pytest.raises(UserError, match="is for 'table'"):
        search_for_device.run(*common, limit, "verify=true", f"from_kit={runs / 'kit'}")
    with pytest.raises(UserError, match="manifest"):
        search_for_device.run(*common, limit, "verify=true", f"from_kit={runs / 'nowhere'}")
    with pytest.raises(UserError, match="was made for space"):
        build_latency_table.run(
            f"runs_dir={runs}", "run_name=far", "space=mobilenet_v3", f"from_kit={runs / 'kit'}"
        )
