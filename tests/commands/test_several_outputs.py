"""A network that returns a tuple: every output reaches the task, in training, records, bundles and files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from PIL import Image
from search_for_device import search_for_device
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.export import load_bundle
from ofa.export.bundle import Bundle
from ofa.export.fresh_run import load_file
from ofa.graph.adaptation import adapt_to_images
from predictors.baselines import BASELINES, LINEAR

MODULE = """
import torch
import torch.nn.functional as F
from torch import nn
from ofa.common.metric import Metric
from ofa.evaluation import Task
from ofa.evaluation.task import Meter

class Net(nn.Module):
    def __init__(self, further=0, named=False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        )
        self.label, self.ink = nn.Linear(32, 10), nn.Linear(32, 1)
        self.further, self.named = further, named

    def forward(self, images):
        features = self.body(images).mean((2, 3))
        outputs = self.label(features), self.ink(features)
        if self.named:
            return {"label": outputs[0]}
        return (*outputs, outputs[1]) if self.further and self.training else outputs

class Both(Task):
    '''The label of a digit, and its parity by a second output.'''
    metrics = (Metric("both", "both right"), Metric("parity", "parity right"))

    def __init__(self, settings, *, class_weights=None): pass

    def loss(self, outputs, targets):
        labels, parity = outputs
        assert labels.dtype == parity.dtype == torch.float32
        even = F.binary_cross_entropy_with_logits(parity[:, 0], (targets % 2).float())
        return F.cross_entropy(labels, targets) + even

    def soft_loss(self, outputs, teacher_outputs, weight=1.0):
        assert not any(part.requires_grad for part in teacher_outputs)
        return weight * sum(F.mse_loss(a, b) for a, b in zip(outputs, teacher_outputs))

    def meter(self): return Right()

    def batch_score(self, outputs, targets):
        return (outputs[0].argmax(1) == targets).float().mean()

class Right(Meter):
    def __init__(self): self.both, self.parity, self.count = 0, 0, 0
    def add(self, outputs, targets):
        labels, parity = outputs
        right = (parity[:, 0] > 0) == (targets % 2 == 1)
        self.both += int((right & (labels.argmax(1) == targets)).sum())
        self.parity += int(right.sum())
        self.count += len(targets)
    def values(self): return {"both": self.both / self.count, "parity": self.parity / self.count}
"""
TRAINING = (
    "model=my_two:Net",
    "task=my_two:Both",
    "data=digits",
    "phases.sandwich.epochs=2",
    "phases.sandwich.teacher=in_place",
    "training.importance=taylor",
    "training.calibration_images=60",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_two.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("my_two", None)


def run_readme(path: Path, bundle: Bundle) -> None:
    """Run the code of a bundle's README in its folder; it computes both outputs."""
    pixels = torch.randint(0, 256, (8, 8), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path / "photo.png")
    (path / "photo.png").rename(path / "photo.jpg")
    expected = bundle.network(bundle.card.read_image(path / "photo.jpg"))
    parts = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
    assert len(parts) == 3
    for code in parts:
        code += "\nprint([[round(float(v), 3) for v in part.reshape(-1)] for part in outputs])"
        # The weights need the module of the network.
        paths = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", ""), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        for values, part in zip(json.loads(done.stdout), expected, strict=True):
            assert values == pytest.approx(part.flatten().tolist(), abs=2e-3)


def test_the_whole_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, images = "run_name=two", "calibration_images=60"
    train_supernet.run(*TRAINING, run)
    collect_accuracy.run(run, "count=12", images)
    fit_predictor.run(run)
    search = ("limits.macs_m=0.3", "search=random", "search.evaluations=200", "name=small")
    search_for_device.run(run, *search)
    path = export_subnet.run(run, "subnet=small", "formats=[onnx,pt2]", images)
    bundle = load_bundle(path)
    pictures = torch.rand(3, 1, 8, 8)
    expected = bundle.network(pictures)
    assert [tuple(part.shape) for part in expected] == [(3, 10), (3, 1)]
    for name in ("onnx", "pt2"):
        outputs = load_file(bundle, name)(pictures)
        assert isinstance(outputs, tuple)
        torch.testing.assert_close(outputs, tuple(expected), rtol=1e-4, atol=1e-5)
    run_readme(path, bundle)
    values = [
        evaluate_subnet.run(run, "bundle=small", "latency=false", f"format={name}")[0]
        for name in ("weights", "onnx", "pt2")
    ]
    assert max(values) - min(values) < 0.01
    assert "parity right: " in capsys.readouterr().out
    tuning = ("name=tuned", "finetuning.epochs=1", "formats=[]", images)
    assert load_bundle(finetune_subnet.run(run, "bundle=small", *tuning)).card.task == "my_two:Both"
    for formats, more, text in (
        ("[openvino]", (), "returns 2 tensors, and openvino takes a single one"),
        ("[onnx]", ("precision=int8",), "returns 2 tensors, and a lower precision takes a single one"),
    ):
        with pytest.raises(UserError, match=text):
            export_subnet.run(run, "subnet=small", f"formats={formats}", images, "name=other", *more)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (
            {"further": 1},
            r"\[\(2, 10\), \(2, 1\)\] in evaluation mode and \[.*\(2, 1\), \(2, 1\)\] in training",
        ),
        ({"named": True}, "Net returns a dict in evaluation mode; expected a tensor, or a tuple of tensors"),
    ],
)
def test_outputs_of_another_kind_are_refused(folder: Path, kwargs: dict[str, object], text: str) -> None:
    from ofa.graph.factory import load_model

    network = load_model("my_two:Net", kwargs)
    with pytest.raises(UserError, match=text):
        adapt_to_images(network, side=8, in_channels=1, num_classes=10, task="my_two:Both")


def test_a_known_task_takes_one_output(folder: Path) -> None:
    with pytest.raises(UserError, match=r"Net returns a tuple for 2 images; expected logits \(2, classes\)"):
        train_supernet.run(*(setting for setting in TRAINING if "task" not in setting), "run_name=plain")
