"""The detection example by the commands: training, bundle with ONNX, evaluation of its file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from detection.shapes import CLASS_NAMES, draw_coco_folder
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from train_supernet import train_supernet

from ofa.export import load_bundle

TRAINING = (
    "data=own",
    "data.source=detection.coco:CocoData",
    "data.image_size=64",
    "data.validation_size=12",
    "model=detection.model:small_ssdlite",
    "model.resolutions=[48,64]",
    "phases.sandwich.epochs=1",
    "phases.sandwich.warmup_epochs=0",
    "phases.sandwich.teacher=in_place",
    "training.batch_size=16",
    "training.calibration_images=16",
)


def test_the_way_of_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocotools")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    root = draw_coco_folder(tmp_path / "shapes", num_train=60, num_test=12, side=64)
    train_supernet.run(*TRAINING, f"data.root={root}", "run_name=shapes")
    assert "validation mAP, smallest" in capsys.readouterr().out
    path = export_subnet.run("run_name=shapes", "subnet=smallest", "formats=[onnx]", "calibration_images=16")
    card = load_bundle(path).card
    assert card.task == "detection.task:DetectionTask" and card.class_names == CLASS_NAMES
    assert card.input_shape == (3, 48, 48)
    run = ("run_name=shapes", "bundle=smallest", "latency=false")
    values = [evaluate_subnet.run(*run, f"format={name}")[0] for name in ("weights", "onnx")]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert "mAP of onnx on test: " in (text := capsys.readouterr().out) and "mAP at IoU 0.5: " in text
