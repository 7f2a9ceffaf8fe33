"""The command that reports what of a user's model varies: settings, text, JSON and errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from inspect_model import inspect_model
from torch import nn

from ofa.common.errors import UserError
from ofa.graph.report_text import report_lines

SOURCE = """
from torch import nn

def tiny(width=16, classes=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 5, padding=2), nn.ReLU(), nn.Conv2d(width, 32, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, classes),
    )
"""
COMMON = ("model=inspected:tiny", "resolution=8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inspected.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "inspected", raising=False)
    return tmp_path


def test_the_report_is_printed_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("limits.macs_m=1", "limits.parameters_m=1", "limits.memory_mb=1")
    report = inspect_model.run(*COMMON, *limits, "model.kwargs.width=24", "out=report.json")
    printed = capsys.readouterr().out
    assert printed.startswith("converting inspected:tiny for inputs of 2x3x8x8")
    assert "\n".join(report_lines(report)) in printed and printed.count(": reachable") == 3
    values = json.loads((folder / "report.json").read_text())
    assert values["model_class"] == "Sequential"
    assert [gene["choices"] for gene in values["genes"]] == [[8], [8, 16, 24], [8, 16, 24, 32], [3, 5]]


def test_settings_reach_the_conversion(folder: Path) -> None:
    report = inspect_model.run(
        "model=inspected:tiny",
        "model.resolutions=[8,12]",
        "model.widths=[0.5,1.0]",
        "model.kernel_sizes=[5]",
        "model.rules=[{pattern: '0', divisor: 4, widths: [0.25, 1]}]",
    )
    choices = {gene.name: gene.choices for gene in report.genes}
    assert choices == {"resolution": (8, 12), "width:0": (4, 16), "width:2": (16, 32)}
    included = inspect_model.run(*COMMON, "model.include=['2']")
    assert [gene.name for gene in included.genes] == ["resolution", "width:2"]
    assert {module.name for module in included.modules if not module.is_elastic} == {"0"}


def test_the_shape_of_the_input_is_a_setting(folder: Path) -> None:
    report = inspect_model.run("model=inspected:tiny", "input=[1,3,8,12]")
    assert report.costs["largest"]["macs"] == 96 * (3 * 25 * 16 + 16 * 32) + 32 * 4


def test_weights_of_a_file_are_loaded(folder: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.Flatten(), nn.Linear(32, 4)
    )
    torch.save(network.state_dict(), folder / "other.pth")
    with pytest.raises(UserError, match=r"2 missing: 5\.weight, 5\.bias"):
        inspect_model.run(*COMMON, "model.weights=other.pth")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["limits.macs_m=0.001"], "No sub-network has at most 0.001 M MACs; the smallest has 0.0"),
        (["model.exclude=['layer9.*']"], r"exclude has the pattern 'layer9\.\*', which matches no module"),
        (["model.exclude=['*']"], "exclude and include leave nothing that may vary"),
        (["model.kwargs.width=-1"], r"inspected:tiny\(width=-1\) failed: RuntimeError: .*\(inspected.py:6\)"),
        (["model.kwargs.widths=1"], "failed: TypeError: .*unexpected keyword argument 'widths'"),
        (["model.kwarg.width=1"], "Unknown setting 'model.kwarg.width'"),
        (["model.divisor=32", "model.kernel_sizes=[5]"], "Nothing of this network may vary:\n  0: "),
        (["input=[2,3,8,8]"], "input and resolution are both given"),
        (["model.widths=[0.5]"], "expected shares up to 1, and 1 among them"),
    ],
)
def test_mistakes_are_explained(folder: Path, settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        inspect_model.run(*COMMON, *settings)


@pytest.mark.parametrize("setting", ["model=a:b", "model.name=a:b", "model={name: 'a:b'}"])
def test_the_name_of_the_model_has_a_short_form(setting: str) -> None:
    config = inspect_model.config(
        setting, "model.kwargs.depth=2", "model.kwargs.kind=small", "model.weights=w=1.pth"
    )
    assert (config.model.name, config.model.weights) == ("a:b", "w=1.pth")
    assert config.model.kwargs == {"depth": 2, "kind": "small"}
