"""A task and images of one's own by the commands: the examples of docs/tasks.md, and every refusal."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from find_networks import find_networks
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from prune_model import prune_model
from search_for_device import search_for_device
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.common.metric import Metric
from ofa.export import load_bundle
from ofa.runs import RunConfig, open_run
from ofa.space.staged import StagedSpace
from predictors.baselines import BASELINES, LINEAR

MODULES = ("my_tasks", "my_data", "my_corners", "my_nets")
NETS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 2),
        )
"""
FOCAL = ("task=my_tasks:FocalTask", "data=digits", "phases=demo", "training=demo", "training.length=0.2")
OWN = ("data=own", "data.source=my_data:make_data", "data.kwargs.count=160", "data.validation_size=40")
CORNERS = (*OWN, "task=my_corners:CornerTask", "model=my_nets:Net", "model.min_channels=8")
DISTANCE = Metric("distance", "mean distance", higher_is_better=False, is_fraction=False)


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the modules of docs/tasks.md, and the state of this machine."""
    text = (root / "docs" / "tasks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"`(\w+)\.py`:\n\n```python\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["my_tasks", "my_data", "my_corners"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
        patch.chdir(tmp_path_factory.mktemp("own"))
        for name, code in (*blocks, ("my_nets", NETS)):
            Path(f"{name}.py").write_text(code, encoding="utf-8")
        yield Path.cwd()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def focal(folder: Path) -> Path:
    """A run of the focal loss with the bundle of its largest network."""
    train_supernet.run(*FOCAL, "run_name=focal")
    export_subnet.run("run_name=focal", "subnet=largest", "formats=[]", "calibration_images=40")
    return folder / "runs/focal"


def test_the_task_of_a_run_is_used_without_being_told_again(
    focal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = "run_name=focal"
    assert json.loads((focal / "config.json").read_text())["data"]["task"] == "my_tasks:FocalTask"
    assert open_run(RunConfig(run_name="focal")).data.info.task == "my_tasks:FocalTask"
    card = load_bundle(focal / "bundles/largest").card
    assert card.task == "my_tasks:FocalTask" and len(card.class_names) == 10
    evaluate_subnet.run(run, "bundle=largest", "latency=false")
    text = capsys.readouterr().out
    assert "top-1 of weights on test: " in text and "for pictures of your own" not in text
    quick = ("bundle=largest", "name=tuned", "finetuning.epochs=1", "formats=[]", "calibration_images=40")
    assert load_bundle(finetune_subnet.run(run, *quick)).card.task == card.task
    # It goes on without being trained again, and with no other task.
    train_supernet.run(*FOCAL, run)
    with pytest.raises(UserError, match=r"data.task was 'my_tasks:FocalTask' and is None"):
        train_supernet.run(*FOCAL[1:], run)
    with pytest.raises(UserError, match="made with another task than my_tasks:Other: my_tasks:FocalTask"):
        evaluate_subnet.run(run, "bundle=largest", "task=my_tasks:Other")


def test_a_bundle_from_outside_needs_the_task_on_the_command_line(
    focal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(focal / "bundles/largest", tmp_path / "other/bundles/largest")
    shutil.copytree(focal, tmp_path / "runs/copied")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    bundle = f"bundle={tmp_path / 'other/bundles/largest'}"
    copied = ("run_name=copied", f"runs_dir={tmp_path / 'runs'}", "bundle=largest", "latency=false")
    load_bundle(tmp_path / "other/bundles/largest").network.eval()
    with pytest.raises(UserError, match=r"digits is for classification. If you .* task=my_tasks:FocalTask"):
        evaluate_subnet.run("run_name=other", bundle, "data=digits", "latency=false")
    with pytest.raises(UserError, match=r"is my_tasks:FocalTask, and .* was not made on this machine"):
        evaluate_subnet.run(*copied)
    assert "my_tasks" not in sys.modules
    task = "task=my_tasks:FocalTask"
    output = f"output={tmp_path / 'report.json'}"
    evaluate_subnet.run("run_name=other", bundle, "data=digits", task, "latency=false", output)
    assert "my_tasks" in sys.modules
    tuning = ("name=t", "finetuning.epochs=1", "formats=[]", "calibration_images=40", f"runs_dir={tmp_path}")
    tuned = finetune_subnet.run("run_name=other", bundle, "data=digits", task, *tuning)
    assert load_bundle(tuned).card.task == "my_tasks:FocalTask"
    evaluate_subnet.run(*copied)


def test_a_run_from_elsewhere_runs_no_function_of_images(
    focal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copied"
    shutil.copytree(focal, path)
    for file, below in ((path / "config.json", ()), (path / "supernet.json", ("provenance", "config"))):
        values = json.loads(file.read_text())
        inner = values
        for name in below:
            inner = inner[name]
        inner["data"] |= {"name": "own", "source": "my_data:make_data", "kwargs": {"count": 160}}
        del inner["data"]["task"]
        file.write_text(json.dumps(values))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    with pytest.raises(UserError, match=r"made by my_data:make_data, and .*data\.kwargs\.count=160"):
        evaluate_subnet.run("run_name=copied", f"runs_dir={tmp_path}", "bundle=largest")
    assert "my_data" not in sys.modules


def test_own_images_and_a_metric_that_falls_the_whole_way(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images = "run_name=corners", "calibration_images=40"
    length = ("phases.sandwich.epochs=8", "training.batch_size=20", images.replace("cal", "training.cal"))
    train_supernet.run(*CORNERS, *length, run)
    collect_accuracy.run(run, "count=12", images)
    header = json.loads((folder / "runs/corners/accuracy.jsonl").read_text().splitlines()[0])
    assert header["metric"]["higher_is_better"] is False
    fit_predictor.run(run)
    name, result = search_for_device.run(
        run, "limits.macs_m=0.3", "search=random", "search.evaluations=500", "name=small"
    )
    assert result.metric == DISTANCE
    path = export_subnet.run(run, f"subnet={name}", "formats=[]", images)
    value, _ = evaluate_subnet.run(run, f"bundle={path.name}", "latency=false")
    assert "mean distance of weights on test: " in capsys.readouterr().out
    assert 0 < value < 12
    with pytest.raises(UserError, match=r"data.kwargs.count was 160 and is 80"):
        train_supernet.run(*CORNERS, *length, run, "data.kwargs.count=80")


def test_pruning_and_finding_take_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("candidates=2", "finetuning.epochs=1", "formats=[]", "calibration_images=40", "macs_share=0.7")
    pruned = prune_model.run(*CORNERS, *quick, "run_name=pruned")
    assert pruned.metric == DISTANCE
    assert load_bundle(folder / "runs/pruned/bundles/pruned").card.task == "my_corners:CornerTask"
    more = ("model.widths=[0.25,0.375,0.5,0.625,0.75,0.875,1.0]", "model.divisor=4")
    find_networks.run(*CORNERS, *more, "plan_only=true", "run_name=found")
    line = capsys.readouterr().out.splitlines()[-1]
    settings = [part.strip("'") for part in line.partition("ofa train ")[2].split()]
    assert train_supernet.config(*settings).data == find_networks.config(*CORNERS).data


def test_commands_with_other_images_take_the_arguments_of_the_function() -> None:
    for command in (evaluate_subnet, finetune_subnet):
        data = command.config("bundle=b", *OWN, "task=my_corners:CornerTask").data
        assert data is not None and data.kwargs == {"count": 160} and data.source == "my_data:make_data"
    assert finetune_subnet.config("bundle=b").data is None


def test_finding_treats_a_derived_task_like_its_own(folder: Path) -> None:
    from ofa.data.sources import load_data
    from ofa.runs.plan import facts_of

    config = find_networks.config("task=my_tasks:FocalTask", "data=digits", "space=mobilenet_v3_tiny")
    assert config.data.task == "my_tasks:FocalTask" and isinstance(config.space, StagedSpace)
    assert facts_of(load_data(config.data)).task == "classification"
    with pytest.raises(UserError, match="outputs of the task my_corners:CornerTask, so no network can"):
        find_networks.run(*OWN, "task=my_corners:CornerTask", "plan_only=true")
