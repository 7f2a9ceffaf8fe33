"""Unfinished files and folders: left-overs of killed writers go, those of living ones stay."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ofa.common.unfinished
from ofa.common.errors import UserError
from ofa.common.exchange import exchange
from ofa.common.files import new_folder, write_atomic, write_together
from ofa.common.unfinished import (
    put_back,
    remove_leftovers,
    replace_folder,
    unfinished_file,
    unfinished_folder,
)

TOKEN = "0123456789abcdef"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed_while(work: Callable[[Callable[[], None]], None]) -> None:
    """Run `work` in a forked process; calling its argument kills that."""
    child = os.fork()
    if child == 0:
        work(lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def half_write(path: Path) -> None:
    """Begin a file and a folder in a process that is killed in the middle of both."""

    def work(kill: Callable[[], None]) -> None:
        with unfinished_file(path) as file, unfinished_folder(path) as folder:
            file.write_text("half")
            (folder / "part").write_text("half")
            kill()

    killed_while(work)


def test_names_never_repeat_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    with unfinished_file(tmp_path / "a") as first, unfinished_file(tmp_path / "a") as second:
        assert first != second and first.name.startswith(".a.")
        assert names(tmp_path) == sorted([first.name, second.name])
    assert names(tmp_path) == []


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    half_write(tmp_path / "bundle")
    others = sorted([".hidden", "my.tmp", ".note.tmp", ".a.42.tmp", ".bashrc.old", ".a.42.old", "bundle"])
    for name in others:
        (tmp_path / name).write_text("the user's")
    with unfinished_file(tmp_path / "x") as file, unfinished_folder(tmp_path / "y") as folder:
        assert len(names(tmp_path)) == len(others) + 4
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([*others, file.name, folder.name])
    remove_leftovers(tmp_path)
    assert names(tmp_path) == others
    remove_leftovers(tmp_path / "missing")


def test_writers_that_tidy_up_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(60):
                    write_atomic(tmp_path / f"file{number % 2}", lambda path: path.write_text("whole"))
                    with new_folder(tmp_path / f"folder{number % 2}", "folder") as folder:
                        (folder / "text").write_text("whole")
                    remove_leftovers(tmp_path)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert names(tmp_path) == ["file0", "file1", "folder0", "folder1"]


def test_without_locks_only_what_is_old_is_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    for name in (f".new.{TOKEN}.tmp", f".old.{TOKEN}.tmp"):
        (tmp_path / name).touch()
    two_days_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / f".old.{TOKEN}.tmp", (two_days_ago, two_days_ago))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [f".new.{TOKEN}.tmp"]
    write_atomic(tmp_path / "file", lambda path: path.write_text("written"))
    assert (tmp_path / "file").read_text() == "written"


def folder_with(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "text").write_text(text)
    return path


def test_folders_swap_their_names(tmp_path: Path) -> None:
    old, new = folder_with(tmp_path / "old", "old"), folder_with(tmp_path / "new", "new")
    assert exchange(old, new)
    assert (old / "text").read_text() == "new" and (new / "text").read_text() == "old"
    assert not exchange(old, tmp_path / "missing") and (old / "text").read_text() == "new"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced(tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_exchange:
        monkeypatch.setattr(ofa.common.unfinished, "exchange", lambda *_: False)
    path = tmp_path / "bundle"
    for text in ("one", "two", "three"):
        with new_folder(path, "bundle") as folder:
            (folder / "text").write_text(text)
            assert not path.exists() or (path / "text").read_text() != text
        assert (path / "text").read_text() == text
        assert names(tmp_path) == ["bundle"]


def test_a_folder_moved_aside_by_a_killed_writer_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ofa.common.unfinished, "exchange", lambda *_: False)
    path = folder_with(tmp_path / "a [1]", "old")

    def work(kill: Callable[[], None]) -> None:
        rename = Path.rename

        def rename_once(source: Path, target: Path) -> Path:
            if source != path:
                kill()
            return rename(source, target)

        monkeypatch.setattr(Path, "rename", rename_once)
        replace_folder(path, folder_with(tmp_path / f".a [1].{TOKEN}.tmp", "new"))

    killed_while(work)
    assert not path.exists()
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    put_back(path)
    assert (path / "text").read_text() == "old"
    # The next writer in the folder does it, too, and removes the new one.
    remove_leftovers(tmp_path.with_name("copy"))
    assert names(tmp_path.with_name("copy")) == ["a [1]"]


def test_a_folder_moved_aside_is_put_back_or_removed(tmp_path: Path) -> None:
    folder_with(tmp_path / f".gone.{TOKEN}.old", "gone")
    folder_with(tmp_path / f".there.{TOKEN}.old", "old")
    folder_with(tmp_path / "there", "new")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["gone", "there"]
    assert (tmp_path / "there" / "text").read_text() == "new"


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def fail(path: Path) -> None:
        assert first.read_text() == "1"
        raise OSError(28, "No space left on device")

    write_together({first: lambda path: path.write_text("1"), second: lambda path: path.write_text("2")})
    with pytest.raises(UserError, match="Could not write .*second: .*No space left"):
        write_together({first: lambda path: path.write_text("new"), second: fail})
    assert (first.read_text(), second.read_text()) == ("1", "2")
    assert names(tmp_path) == ["first", "second"]
