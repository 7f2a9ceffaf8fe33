"""Locks: one writer at a time, found out before the work; nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.common.errors import UserError
from ofa.common.locks import locked, sole_writer

HOLD = (
    "import sys, time; from pathlib import Path; from ofa.common.locks import sole_writer\n"
    "with sole_writer(Path(sys.argv[1]), 'bundle'): print('locked', flush=True); time.sleep(60)"
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bundles" / "small"


def test_a_second_writer_is_refused_by_name(target: Path, root: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        refused = (
            rf"Another process, {other.pid} on .*, is at work on the bundle .*small; .*choose another name\."
        )
        with pytest.raises(UserError, match=refused), sole_writer(target, "bundle", patience_s=0.2):
            pass
        with sole_writer(target.with_name("large"), "bundle", patience_s=0.0):
            pass
    finally:
        other.kill()
        other.wait()
    assert len(list(target.parent.iterdir())) == 2
    with sole_writer(target, "bundle", patience_s=1.0):
        assert target.with_name(".small.holder").read_text().startswith(f"{os.getpid()} on ")
    assert list(target.parent.iterdir()) == []


def test_only_one_of_many_holds_a_lock_whose_file_disappears(target: Path) -> None:
    """Each process holds the lock many times; a file that is there while it is held belongs to one alone."""
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(15):
                    with sole_writer(target, "bundle", patience_s=60.0):
                        os.close(os.open(target.with_name("held"), os.O_CREAT | os.O_EXCL))
                        target.with_name("held").unlink()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_a_folder_made_for_a_lock_disappears_if_nothing_was_written(target: Path) -> None:
    with pytest.raises(UserError, match="no such run"), sole_writer(target, "bundle"):
        raise UserError("no such run")
    assert not target.parent.exists() and target.parent.parent.exists()
    with sole_writer(target, "bundle"):
        target.write_text("written")
    assert [path.name for path in target.parent.iterdir()] == ["small"]


def test_leftovers_beside_the_target_and_in_it_are_removed(target: Path) -> None:
    target.mkdir(parents=True)
    for folder in (target, target.parent):
        (folder / ".file.0123456789abcdef.tmp").write_text("half")
    with sole_writer(target, "bundle"):
        assert list(target.iterdir()) == []
        assert sorted(path.name for path in target.parent.iterdir()) == [
            ".small.holder",
            ".small.lock",
            "small",
        ]


def test_a_lock_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"Could not write .*/file/\.training\.lock: .*nothing was changed"),
        locked(tmp_path / "file" / ".training.lock", "the run"),
    ):
        pass


def test_a_full_disk_while_the_lock_is_made_changes_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str, encoding: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with (
        pytest.raises(UserError, match="No space left on device.*nothing was changed"),
        sole_writer(target, "bundle"),
    ):
        pass
    assert not target.parent.exists()


def test_a_lock_ends_with_a_killed_process(target: Path) -> None:
    child = os.fork()
    if child == 0:
        with sole_writer(target, "bundle"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with sole_writer(target, "bundle", patience_s=0.0):
        pass
    assert list(target.parent.iterdir()) == []
