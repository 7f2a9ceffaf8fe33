"""Labels and numbers the whole way by the commands: training, records, search, int8, predictions."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from find_networks import FindConfig, find_networks
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from image_tables import settings, write_labels, write_numbers
from PIL import Image
from predict import predict
from search_for_device import search_for_device
from sklearn.metrics import r2_score
from torch import nn
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.common.metric import MEAN_AVERAGE_PRECISION, R2, Metric
from ofa.data.base import ImageData
from ofa.data.settings import MULTI_LABEL, REGRESSION
from ofa.data.shape_values import NUMBER_NAMES, SHAPE_NAMES
from ofa.data.shapes import draw_shapes
from ofa.data.sources import load_data
from ofa.evaluation.tasks import task_of
from ofa.export import Bundle, load_bundle
from ofa.export.evaluate import card_batches, measure_file
from ofa.runs import RunConfig, open_run
from predictors.baselines import BASELINES, LINEAR

SPACE = ("space=mobilenet_v3_tiny", "space.resolutions=[20]")
SMALL = (
    "data.validation_size=40",
    "training.batch_size=20",
    "training.calibration_images=40",
    "space.resolutions=[20]",
    "training.length=0.1",
)


@dataclass(frozen=True)
class Way:
    """A finished run."""

    task: str
    run: str
    metric: Metric
    more_metric: str
    data: str
    names: tuple[str, ...]


def few_shapes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_shapes(count // 10, seed)


@pytest.fixture(scope="module", params=[MULTI_LABEL, REGRESSION])
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """A finished run in the working folder."""
    task = str(request.param)
    is_labels = task == MULTI_LABEL
    metrics = (MEAN_AVERAGE_PRECISION, "macro F1") if is_labels else (R2, "MAE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setattr("ofa.data.sources.draw_shapes", few_shapes)
        patch.chdir(tmp_path_factory.mktemp(task))
        train_supernet.run(f"experiment={task}_shapes", *SMALL, f"run_name={task}")
        data = ("shapes_labels", SHAPE_NAMES) if is_labels else ("shapes_numbers", NUMBER_NAMES)
        yield Way(task, f"run_name={task}", *metrics, *data)


def printed(way: Way, values: torch.Tensor) -> list[str]:
    """Return the lines that a README's example prints for values."""
    numbers = values.tolist()
    texts = [f"{100 * n:.1f} %" if way.task == MULTI_LABEL else f"{n:.6g}" for n in numbers]
    return [f"{name}: {text}" for name, text in zip(way.names, texts, strict=True)]


def test_the_whole_way(way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    run, metric = way.run, way.metric
    collect_accuracy.run(run, "count=24", "calibration_images=40")
    lines = Path(f"runs/{way.task}/accuracy.jsonl").read_text().splitlines()
    assert f'"{metric.name}"' in lines[0] and len(lines) == 25
    fit_predictor.run(run)
    name, result = search_for_device.run(run, "limits.macs_m=4", "search=random", "search.evaluations=500")
    assert result.metric == metric
    path = export_subnet.run(
        run, f"subnet={name}", "formats=[onnx]", "precision=int8", "calibration_images=40"
    )
    assert f"int8 {metric.title} on validation images" in capsys.readouterr().out
    bundle = load_bundle(path)
    data = open_run(RunConfig(run_name=way.task)).data
    card = bundle.card
    assert card.task == way.task and card.class_names == way.names
    assert card.target_scale == data.info.target_scale
    measured = bundle.files["onnx_int8"].validation_metric
    assert measured is not None and measured.name == metric.name
    assert measured.value == measure_file(bundle, "onnx_int8", data, "validation").values()[metric.name]
    value, _ = evaluate_subnet.run(run, f"bundle={name}", "latency=false", "format=onnx_int8")
    text = capsys.readouterr().out
    assert f"{metric.title} of onnx_int8 on test: {metric.show(value)} (50 images)" in text
    assert f"{way.more_metric}: " in text and f"\n  {way.names[0]}: " in text and "top-1" not in text
    assert f"for pictures of your own: ofa predict {run} bundle={name} format=onnx_int8" in text
    tuning = ("finetuning.epochs=1", "formats=[]", "calibration_images=40")
    tuned = finetune_subnet.run(run, f"bundle={name}", "name=tuned", *tuning)
    text = capsys.readouterr().out
    assert f"validation {metric.title}: " in text
    is_noted = "no classes: label_smoothing counts as 0.0, soft_loss counts as squared_error" in text
    assert is_noted == (way.task == REGRESSION)
    assert load_bundle(tuned).card.expected_metric.name == metric.name  # type: ignore[union-attr]
    for other in (evaluate_subnet, finetune_subnet):
        with pytest.raises(UserError, match=f"is a network for {way.task}; digits is for classification"):
            other.run("run_name=other", f"bundle={path}", "data=digits")
    pictures, _ = few_shapes(10, 3)
    Image.fromarray(pictures[0].permute(1, 2, 0).numpy()).save("one.png")
    written = predict.run(run, f"bundle={name}", "images=one.png", "format=onnx")
    header, row = csv.reader(written.read_text().splitlines())
    outputs = bundle.network(card.read_image("one.png"))
    values = task_of(data).read(outputs)[0].detach()
    assert header == ["file", *way.names]
    assert torch.allclose(torch.tensor([float(cell) for cell in row[1:]]).to(values), values, rtol=1e-3)
    (path / "photo.jpg").write_bytes(Path("one.png").read_bytes())
    parts = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
    assert len(parts) == 3
    for code in parts[:2]:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True
        )
        assert [line.split(": ")[0] for line in done.stdout.splitlines()] == list(way.names)
    assert done.stdout.splitlines()[0][:10] == printed(way, values)[0][:10]


def test_the_run_says_what_its_images_are(way: Way) -> None:
    summary = json.loads(Path(f"runs/{way.task}/summary.json").read_text())
    assert way.metric.name in summary and summary["data"] == way.data
    described = json.loads(Path(f"runs/{way.task}/supernet.json").read_text())["provenance"]
    assert ("target_scale" in described) == (way.task == REGRESSION)


def test_losses_of_classes_are_refused_for_numbers_and_mixed_images_for_both() -> None:
    with pytest.raises(UserError, match=r"Give training.label_smoothing=0.0 training.soft_loss=sq"):
        train_supernet.run("experiment=regression_shapes", "phases=quick", "training=quick", *SMALL[:2])
    for task in (MULTI_LABEL, REGRESSION):
        with pytest.raises(UserError, match="mixup and cutmix mix the classes of images, which this task"):
            train_supernet.run(f"experiment={task}_shapes", "training.mixup=0.2", *SMALL[:2])


def test_an_experiment_stands_for_its_choices_in_find() -> None:
    for task, data, recipe in (
        (MULTI_LABEL, "shapes_labels", "quick"),
        (REGRESSION, "shapes_numbers", "regression"),
    ):
        config = find_networks.config(f"experiment={task}_shapes")
        assert isinstance(config, FindConfig) and (config.data.name, config.recipe) == (data, recipe)
        assert config.space is not None and config.space.name == "mobilenet_v3_tiny"
        folder = find_networks.config(f"experiment={task}_folder", "data.root=x")
        assert isinstance(folder, FindConfig) and folder.data.name == f"{task}_folder"


@pytest.mark.parametrize("task", [MULTI_LABEL, REGRESSION])
def test_a_folder_trains_a_network_and_a_model_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write = write_labels if task == MULTI_LABEL else write_numbers
    root = write(tmp_path / "set", 40)
    given = (f"data={task}_folder", f"data.root={root}", "data.image_size=24", "data.workers=0")
    sizes = ("training.batch_size=8", "training.calibration_images=16", "training.validation_images=8")
    recipe = "quick" if task == MULTI_LABEL else "regression"
    chosen = (f"phases={recipe}", f"training={recipe}", "training.length=0.03")
    train_supernet.run(*SPACE, *given, *sizes, *chosen, "run_name=own")
    text = capsys.readouterr().out
    kind = "labels: red" if task == MULTI_LABEL else "numbers: width"
    num = 3 if task == MULTI_LABEL else 2
    assert f"40 images with {num} {kind}" in text and "next: ofa collect" in text
    model = ("model=torchvision:shufflenet_v2_x0_5", "space=null", "model.divisor=16")
    train_supernet.run(*model, *given, *sizes, *chosen, "run_name=model")
    run = open_run(RunConfig(run_name="model"))
    network: nn.Module = run.supernet.extract(run.info.space.smallest).eval()  # type: ignore[arg-type]
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, num)


def test_a_network_keeps_the_scale_that_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_numbers(tmp_path / "set", 40)
    given = ("data=regression_folder", f"data.root={root}", "data.image_size=24", "data.workers=0")
    sizes = ("training.batch_size=8", "training.calibration_images=16", "training.validation_images=8")
    chosen = ("phases=regression", "training=regression", "training.length=0.03")
    train_supernet.run(*SPACE, *given, *sizes, *chosen, "run_name=a")
    scale = open_run(RunConfig(run_name="a")).data.info.target_scale
    bundle = load_bundle(export_subnet.run("run_name=a", "subnet=largest", "formats=[]"))
    other = _with_larger_numbers(root, tmp_path / "other")
    assert open_run(RunConfig(run_name="a", data_root=str(other))).data.info.target_scale == scale
    images = (*given, f"data.root={other}")
    value, _ = evaluate_subnet.run("run_name=a", "bundle=largest", "latency=false", "format=weights", *images)
    assert value == pytest.approx(
        _r2(bundle, load_data(settings(other, "regression", image_size=24))), rel=1e-5
    )
    tuned = finetune_subnet.run(
        *("run_name=a", "bundle=largest", "name=tuned", "formats=[]", "finetuning.batch_size=8"), *images
    )
    assert load_bundle(tuned).card.target_scale == scale == bundle.card.target_scale
    # Other columns get a new classifier, whose outputs have a scale of their own.
    table = other / "table.csv"
    table.write_text(table.read_text().replace("width", "depth"))
    new = finetune_subnet.run(
        *("run_name=a", "bundle=largest", "name=new", "formats=[]", "finetuning.batch_size=8"), *images
    )
    assert load_bundle(new).card.target_scale == load_data(settings(other, "regression")).info.target_scale
    assert load_bundle(new).card.class_names == ("depth", "height")


def _with_larger_numbers(root: Path, folder: Path) -> Path:
    """Copy a set to a folder, with numbers of another mean."""
    shutil.copytree(root, folder)
    header, *lines = (root / "table.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    texts = [f"{file},{float(width) + 100},{height}" for file, width, height in rows]
    (folder / "table.csv").write_text("\n".join([header, *texts]))
    return folder


def _r2(bundle: Bundle, data: ImageData) -> float:
    """Return R² of a bundle's network on test images, by scikit-learn, in the units of the table."""
    scale = bundle.card.target_scale
    assert scale is not None
    images, targets = zip(*card_batches(bundle.card, data, "test"), strict=True)
    with torch.no_grad():
        outputs = bundle.network(torch.cat(images)).double()
    numbers = outputs * torch.tensor(scale.std) + torch.tensor(scale.mean)
    return float(r2_score(torch.cat(targets).numpy(), numbers.numpy()))
