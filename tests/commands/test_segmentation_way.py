"""Segmentation the whole way by the commands: training, records, predictor, search, int8, overlays."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from find_networks import FindConfig, find_networks
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from numpy.typing import NDArray
from PIL import Image
from search_for_device import search_for_device
from segment import segment
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.common.metric import MEAN_IOU
from ofa.data.settings import SEGMENTATION
from ofa.data.shapes import CLASS_NAMES, draw_shapes
from ofa.export import load_bundle
from ofa.export.evaluate import measure_file
from ofa.launch import compose
from ofa.runs import RunConfig, open_run
from predictors.baselines import BASELINES, LINEAR

RUN = "run_name=shapes"
TRAINING = (
    "experiment=segmentation_shapes",
    "model.kwargs.width=4",
    "data.validation_size=40",
    "phases.largest.epochs=20",
    "phases.elastic.epochs=2",
    "training.batch_size=20",
    "training.calibration_images=40",
)


def run_examples(bundle: Path, picture: Path, mask: NDArray[np.uint8]) -> None:
    """Run the code of a bundle's README in its folder; every part prints the shares of the classes."""
    (bundle / "photo.jpg").write_bytes(picture.read_bytes())
    parts = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    assert len(parts) == 3
    for code in parts[:2]:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True, check=True
        )
        shares = [f"{CLASS_NAMES[c]}: {100 * (mask == c).mean():.1f} %" for c in np.unique(mask)]
        assert done.stdout.splitlines() == shares


def few_shapes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_shapes(count // 10, seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setattr("ofa.data.sources.draw_shapes", few_shapes)
        patch.chdir(tmp_path_factory.mktemp("segmentation"))
        train_supernet.run(*TRAINING, RUN)
        yield Path.cwd()


def test_the_whole_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    collect_accuracy.run(RUN, "count=24", "calibration_images=40")
    lines = (folder / "runs/shapes/accuracy.jsonl").read_text().splitlines()
    assert '"mean_iou"' in lines[0] and len(set(lines)) == 25
    fit_predictor.run(RUN)
    name, result = search_for_device.run(RUN, "limits.macs_m=1.5", "search=random", "search.evaluations=2000")
    assert result.metric == MEAN_IOU
    path = export_subnet.run(
        RUN, f"subnet={name}", "formats=[onnx]", "precision=int8", "calibration_images=40"
    )
    assert "int8 mean IoU on validation images" in capsys.readouterr().out
    bundle = load_bundle(path)
    assert bundle.card.task == SEGMENTATION and bundle.card.class_names == CLASS_NAMES
    measured = bundle.files["onnx_int8"].validation_metric
    assert measured is not None and measured.name == "mean_iou"
    data = open_run(RunConfig(run_name="shapes")).data
    assert measured.value == measure_file(bundle, "onnx_int8", data, "validation").values()["mean_iou"]
    value, _ = evaluate_subnet.run(RUN, f"bundle={name}", "latency=false", "format=onnx_int8")
    text = capsys.readouterr().out
    assert f"mean IoU of onnx_int8 on test: {100 * value:.2f} % (50 images)" in text
    assert "pixel accuracy: " in text and "top-1" not in text
    assert f"for pictures of your own: ofa segment run_name=shapes bundle={name} format=onnx_int8" in text
    report = json.loads((folder / f"runs/shapes/reports/{name}-onnx_int8-shapes-test.json").read_text())
    assert report["num_pixels"] == 50 * 32 * 32 and report["metrics"]["mean_iou"] == value
    tuned = finetune_subnet.run(
        RUN, f"bundle={name}", "name=tuned", "finetuning.epochs=1", "formats=[]", "calibration_images=40"
    )
    assert load_bundle(tuned).card.expected_metric.name == "mean_iou"  # type: ignore[union-attr]
    assert "validation mean IoU: " in capsys.readouterr().out
    other = ("run_name=other", f"bundle={path}", "data=digits")
    with pytest.raises(UserError, match="is a network for segmentation; digits is for classification"):
        finetune_subnet.run(*other, "finetuning.epochs=1")
    with pytest.raises(UserError, match="is a network for segmentation; digits is for classification"):
        evaluate_subnet.run(*other, "latency=false")
    pictures, _ = few_shapes(10, 3)
    Image.fromarray(pictures[0].permute(1, 2, 0).numpy()).save("one.png")
    shown = segment.run(RUN, f"bundle={name}", "images=one.png", "format=onnx")
    mask = np.asarray(Image.open(shown / "one.png-mask.png"))
    run_examples(path, Path("one.png"), mask)
    logits = bundle.network(bundle.card.read_image("one.png"))
    assert np.array_equal(mask, logits[0].argmax(0).numpy())


def test_an_experiment_stands_for_its_choices_in_find() -> None:
    config = find_networks.config("experiment=segmentation_shapes", "model.divisor=4")
    assert isinstance(config, FindConfig) and config.data.name == "shapes"
    assert config.recipe == "segmentation" and config.space is None and config.experiment is None
    assert (config.model.name, config.model.kwargs, config.model.divisor) == ("ofa:unet", {"width": 8}, 4)
    digits = find_networks.config("experiment=digits", "recipe=demo")
    assert digits.data.name == "digits" and digits.recipe == "demo"
    assert digits.space is not None and digits.space.name == "mobilenet_v3_tiny"
    assert compose("find_networks", ["experiment=digits"], FindConfig).experiment is None
