"""Trainings, fine-tunings and exports say or find out at the start what they need on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from crash_stages import TRAINING
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from train_supernet import train_supernet

from ofa.common.disk import size_text
from ofa.common.errors import UserError
from ofa.common.tensors import state_bytes
from ofa.launch import Command
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import build_supernet
from ofa.training.checkpoints import TrainingCheckpoints, checkpoints_bytes
from ofa.training.optimizer import build_optimizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `run` and its bundle `smallest`."""
    folder = tmp_path_factory.mktemp("trained")
    train_supernet.run(f"runs_dir={folder}", "run_name=run", *TRAINING)
    export_subnet.run(f"runs_dir={folder}", "run_name=run", "subnet=smallest", "formats=[]")
    return folder


def test_the_size_of_checkpoints_is_that_of_their_files(micro_space: StagedSpace, tmp_path: Path) -> None:
    supernet = build_supernet(micro_space)
    optimizer = build_optimizer(supernet, 0.1, 0.9, 0.0)
    for parameter in supernet.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step()
    checkpoints = TrainingCheckpoints(tmp_path)
    for step in (1, 2, 3):
        values = {"supernet": supernet.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoints.save(step, {**values, "average": supernet.state_dict()})
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    # Tensors that are saved twice are written once.
    state = state_bytes(supernet)
    assert checkpoints_bytes(supernet, 2) == pytest.approx(3 * size / 2, rel=0.6)
    assert checkpoints_bytes(supernet, 2) < 3 * size / 2
    assert checkpoints_bytes(supernet, 2, 1) == checkpoints_bytes(supernet, 2) + 3 * state


def test_a_training_says_what_it_needs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_supernet.run(f"runs_dir={trained}", "run_name=run", *TRAINING)
    (line,) = [text for text in capsys.readouterr().out.splitlines() if text.startswith("needs up to ")]
    run = trained / "run"
    size = sum(path.stat().st_size for path in run.rglob("*.pt"))
    needed = [size_text(factor * size) for factor in (0.5, 1.0, 1.5)]
    assert line.endswith(f" in {run}") and " kB in " in line
    assert float(needed[0].split()[0]) < float(line.split()[3]) < float(needed[2].split()[0]), (line, needed)


@pytest.mark.parametrize(
    ("command", "settings", "what"),
    [
        (train_supernet, ("run_name=new", *TRAINING), "the training"),
        (export_subnet, ("run_name=run", "subnet=largest"), "the bundle"),
        (finetune_subnet, ("run_name=run", "bundle=smallest"), "the fine-tuning"),
    ],
)
def test_a_disk_without_room_is_named_before_the_work(
    trained: Path,
    command: Command[object, object],
    settings: tuple[str, ...],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tree() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}

    before = tree()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    with pytest.raises(UserError, match=rf"too little room in .*: {what} needs up to \d+ kB, 1 kB are free"):
        command.run(f"runs_dir={trained}", *settings)
    assert tree() == before
