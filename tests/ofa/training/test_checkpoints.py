"""Checkpoints: equal content gives equal files; what is left over is tidied; what is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from training_run import SPACE

from ofa.common.errors import UserError
from ofa.common.tensors import load_tensors, save_tensors
from ofa.runs.supernet_file import load_supernet, save_supernet
from ofa.supernet.supernet import build_supernet
from ofa.training.checkpoints import TrainingCheckpoints


def test_equal_values_give_equal_bytes_in_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for process in (1, 22):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        save_tensors(tmp_path / "weights.pt", {"a": torch.arange(4), "step": 3})
        contents.append((tmp_path / "weights.pt").read_bytes())
    assert contents[0] == contents[1]
    assert load_tensors(tmp_path / "weights.pt", "weights")["step"] == 3


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    checkpoints = TrainingCheckpoints(tmp_path, max_checkpoints=2)
    for step in (3, 6, 9):
        checkpoints.save(step, {"fingerprint": SPACE.fingerprint, "step": step})
    assert checkpoints.steps() == [6, 9]
    (tmp_path / ".step_00000012.pt.0123456789abcdef.tmp").write_bytes(b"half")
    # A killed process may have left an old one.
    shutil.copy(tmp_path / "step_00000006.pt", tmp_path / "step_00000003.pt")
    checked: list[str] = []
    values, damaged = checkpoints.load_latest(lambda values, what: checked.append(what))
    assert values is not None and values["step"] == 9
    assert checked == [f"checkpoint {tmp_path / 'step_00000009.pt'}"]
    assert damaged == []
    assert checkpoints.steps() == [6, 9]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_supernet_survives_saving(tmp_path: Path) -> None:
    supernet = build_supernet(SPACE, 4)
    save_supernet(tmp_path / "supernet.pt", supernet, {"why": "test"})
    loaded, info = load_supernet(tmp_path / "supernet.pt", SPACE)
    assert info.space == SPACE
    assert info.provenance["why"] == "test"
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in supernet.state_dict().items())


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No weights at"):
        load_tensors(tmp_path / "none.pt", "weights")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list"):
        load_tensors(tmp_path / "list.pt", "weights")
    torch.save(Path, tmp_path / "code.pt")
    with pytest.raises(UserError, match="cannot be read"):
        load_tensors(tmp_path / "code.pt", "weights")
