"""The whole way as one command: its plan, its end, and what it does where something cannot be had."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import own_models
import pytest
from find_networks import FindConfig, Way, find_networks
from PIL import Image
from short_way import SHORT_WAY
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.common.tensors import content_digest, load_tensors
from ofa.launch import compose
from ofa.runs.conversion import ConvertedModel, convert_for
from predictors.baselines import BASELINES, LINEAR


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 30 pictures, without any split, in a folder whose name needs quotes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "my pictures (2)"
    for label, name in enumerate(("daisy", "tulip")):
        (folder / name).mkdir(parents=True)
        for index in range(30):
            pixels = rng.integers(100 * label, 100 * label + 100, (40, 52, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def run(folder: Path, *more: str) -> Path:
    return find_networks.run(f'data.root="{folder}"', *SHORT_WAY, *more)


def test_the_plan_alone_writes_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(pictures, "plan_only=true", "device=my_cpu", "limits.latency_ms=[1,2]")
    text = capsys.readouterr().out
    assert "evaluate 24 sub-networks" in text
    assert "search and export 3 networks" in text
    assert "in all" in text
    # The run is called after the folder, and the command can be typed.
    assert "'run_name=\"my pictures (2)\"'" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_whole_way_ends_in_bundles_and_goes_on_where_it_stopped(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    limits = "limits.latency_ms=[0.000001,1000]"
    bundles = run(pictures, "device=my_cpu", limits, "run_name=mine")
    text = capsys.readouterr().out
    assert bundles == Path("runs/mine/bundles")
    # One limit is too small for any network: said, and the other is not lost by it.
    assert "left out my_cpu, 1e-06 ms" in text
    assert sorted(path.name for path in bundles.iterdir()) == ["largest", "my_cpu-1000ms"]
    assert (tmp_path / "runs" / "mine" / "pareto.png").is_file()
    supernet = (tmp_path / "runs" / "mine" / "supernet.pt").read_bytes()
    run(pictures, "device=my_cpu", limits, "run_name=mine")
    assert (tmp_path / "runs" / "mine" / "supernet.pt").read_bytes() == supernet
    assert "24 were already measured" in capsys.readouterr().out
    card = json.loads((bundles / "largest" / "subnet.json").read_text())
    assert card["class_names"] == ["daisy", "tulip"]
    # A device without any network is an error after all else.
    shutil.rmtree(bundles)
    (tmp_path / "runs" / "mine" / "pareto.png").unlink()
    with pytest.raises(UserError, match="No network for my_cpu: every limit was left out"):
        run(pictures, "device=my_cpu", "limits.latency_ms=0.000001", "run_name=mine")
    assert (bundles / "largest" / "subnet.json").is_file()
    assert (tmp_path / "runs" / "mine" / "pareto.png").is_file()


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("more_devices=[my_cpu,toaster]", "Unknown device 'toaster'"),
        ("space=nothing", "Unknown space 'nothing'; known: "),
        ("+stages.train.learning.seed=1", "learning"),
        ("data.root=/nowhere/at/all", "not a folder"),
    ],
)
def test_a_mistake_costs_nothing(
    setting: str, text: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=text):
        run(pictures, setting)
    assert not (tmp_path / "runs").exists()


def test_missing_packages_of_an_export_are_said_before_any_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ofa.runtimes.base.missing_packages", lambda packages: [*packages])
    monkeypatch.setattr("ofa.data.sources.load_data", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(UserError, match="Exporting onnx"):
        run(pictures, "device=my_cpu_onnx")


def test_the_quickstart_is_this_command_on_the_digits() -> None:
    values = compose("quickstart")
    assert set(values) == set(compose("find_networks")) == set(FindConfig.__dataclass_fields__)
    assert (values.data.name, values.run_name) == ("digits", "quickstart")


def test_a_bad_table_of_one_device_costs_the_others_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[str, str, object]] = []

    def go(way: Way, stage: str, step: object, settings: dict[str, object]) -> tuple[str, None]:
        calls.append((stage, str(settings.get("device")), settings.get("max_table_error")))
        if stage == "measure":
            way.run.table(str(settings["device"])).parent.mkdir(parents=True, exist_ok=True)
            way.run.table(str(settings["device"])).write_text("{}")
            if settings["device"] == "my_cpu":
                raise UserError("an error of 43.0 %")
        return "name", None

    monkeypatch.setattr(Way, "_go", go)
    monkeypatch.setattr(Way, "_train", lambda way: None)
    with pytest.raises(UserError, match=r"^No network for my_cpu: an error of 43\.0 %$"):
        run(
            pictures,
            "device=my_cpu",
            "more_devices=[my_cpu_onnx]",
            "limits.latency_ms=1",
            "max_table_error=25",
        )
    assert "left out my_cpu: an error of 43.0 %" in capsys.readouterr().out
    assert [call[1:] for call in calls if call[0] == "measure"] == [("my_cpu", 25.0), ("my_cpu_onnx", 25.0)]
    assert [call[1:] for call in calls if call[0] == "search"] == [("my_cpu_onnx", 25.0)]
    # Its table is kept, so that the report can use it.
    assert [device for stage, device, _ in calls if stage == "report"] == ["my_cpu", "my_cpu_onnx"]
    with pytest.raises(UserError, match="max_table_error is -5"):
        run(pictures, "max_table_error=-5")


def test_a_users_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan tries the supernet that is trained then, as if the training had converted the model itself."""
    num_conversions = []

    def counted(*arguments: Any) -> ConvertedModel:
        num_conversions.append(1)
        return convert_for(*arguments)

    monkeypatch.setattr("ofa.runs.conversion.convert_for", counted)
    monkeypatch.setattr(Way, "_go", lambda *_: ("name", None))
    model = ("model=own_nets:Net", "model.weights=Net.pth", "model.divisor=4", "data=digits")
    of_training = [f"+stages.train.{setting}" for setting in own_models.SHORT]
    of_device = ("device=my_cpu", "limits.latency_ms=1")
    with own_models.own_model_folder(tmp_path, monkeypatch):
        find_networks.run(*model, *of_device, *of_training, "run_name=found")
        assert len(num_conversions) == 1
        train_supernet.run(*model, *own_models.SHORT, "run_name=trained")
        assert len(num_conversions) == 2
        states = [
            load_tensors(tmp_path / "runs" / name / "supernet.pt", "supernet")
            for name in ("found", "trained")
        ]
        assert content_digest(states[0]) == content_digest(states[1])
        # Another seed draws other weights.
        find_networks.run(*model, *of_device, *of_training, "+stages.train.training.seed=1", "run_name=third")
        assert len(num_conversions) == 4
    sys.modules.pop("own_nets", None)
