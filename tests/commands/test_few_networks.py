"""Commands of tables from a few whole networks: measured here, by a kit, and given in a file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from build_latency_table import build_latency_table
from made_predictor import save_predictor
from make_device_kit import make_device_kit
from search_for_device import search_for_device

from latency_tables.table.shipped import DATA
from latency_tables.table.table import LatencyTable
from ofa.common.errors import UserError

SPACE = ("space=mobilenet_v3_tiny", "resolutions=[20]")
EFFORT = ("device=my_cpu", "device.rounds=2", "device.runs_per_visit=2", "device.processes=1")
SOURCE = "from_table=cascadelake"

pytestmark = pytest.mark.usefixtures("forked_measuring")


def common(folder: Path) -> tuple[str, ...]:
    return (f"runs_dir={folder}", "run_name=few", *SPACE)


def test_a_table_from_five_networks_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_predictor(tmp_path / "few", "mobilenet_v3_tiny")
    table = tmp_path / "few" / "latency" / "my_cpu.json"
    settings = (*common(tmp_path), f"output={table}", "max_table_error=1000")
    made = build_latency_table.run(*settings, *EFFORT, SOURCE, "networks=5")
    output = capsys.readouterr().out
    assert "from the table of cascadelake (" in output and "and 5 networks" in output
    assert "5 left-out whole networks" in output and f"table={table}" in output
    assert LatencyTable.load(table) == made
    assert build_latency_table.run(*settings, *EFFORT, SOURCE, "networks=5") == made
    limit = max(network.measured_ms for network in made.calibration.networks)
    _, result = search_for_device.run(
        *common(tmp_path),
        *EFFORT,
        "search.generations=5",
        f"limits.latency_ms={10 * limit}",
        "max_table_error=1000",
    )
    assert result.best.values["latency_ms"] <= 10 * limit


def test_latencies_from_elsewhere_make_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    kit = tmp_path / "kit"
    make_device_kit.run(*common(tmp_path), "device.name=phone", SOURCE, f"output={kit}")
    output = capsys.readouterr().out
    assert "10 programs" in output and f"{kit / 'networks.csv'} lists the networks" in output
    assert "from_table=cascadelake" in output
    with (kit / "networks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    source = LatencyTable.load(DATA / "mobilenet_v3_tiny" / "cascadelake.json")
    for number, row in enumerate(rows):
        row["latency_ms"] = f"{5 + number / 10}"
    with (tmp_path / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    phone = ("device=imported", "device.name=phone", "max_table_error=1000")
    filled = f"network_latencies={tmp_path / 'filled.csv'}"
    table = build_latency_table.run(*common(tmp_path), *phone, SOURCE, filled)
    assert table.device.name == "phone" and table.engine["engine"] == "imported"
    assert [network.measured_ms for network in table.calibration.networks] == [5 + i / 10 for i in range(10)]
    assert table.space_fingerprint == source.space_fingerprint
    path = tmp_path / "tables" / "mobilenet_v3_tiny" / "phone.json"
    assert LatencyTable.load(path) == table
    # The same file again, and a corrected one, replace the table.
    build_latency_table.run(*common(tmp_path), *phone, SOURCE, filled)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("networks=10", "from_kit=k"), "networks counts what is measured here"),
        (("networks=10", "network_latencies=f.csv"), "networks counts what is measured here"),
        (("network_latencies=f.csv", "from_kit=k"), "expected one of them"),
        ((SOURCE, "calibration_networks=3"), "belong to tables of measured layers"),
        (("networks=10", "validation_networks=3"), "belong to tables of measured layers"),
        (("networks=0",), "There are 0 networks; expected 5 to 100"),
        (("from_table=gone.json",), "No latency table at gone.json"),
        (("from_table=[cascadelake,cascadelake]",), "same table twice"),
        (("network_latencies=gone.csv",), "No file of network latencies"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_latency_table.run(f"runs_dir={tmp_path}", *SPACE, *EFFORT, *settings)


def test_a_kit_is_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belong to tables of measured layers"):
        make_device_kit.run(f"runs_dir={tmp_path}", *SPACE, "networks=10", "calibration_networks=3")
