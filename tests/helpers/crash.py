"""Processes that are killed at their n-th file operation below a folder, and what they leave."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ofa.common.errors import UserError
from ofa.common.tensors import content_digest

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
"""Flags of an opened file that can be changed."""

NAMED_PATHS = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
}
"""By audited event, positions among its arguments: of each path, and of the folder that it starts from."""

TIMES = {"date", "seconds", "seconds_per_phase", "data_wait_share", "waited", "ms", "median_ms", "reading_ms"}
UNEQUAL = TIMES | {"peak_memory_mb", "digest"}
"""Names of entries with dates, times and what depends on them."""


class FileOperations:
    """Audit hook that counts what changes files below a folder, and calls `interrupt` before the n-th."""

    def __init__(self, folder: Path, number: int = 0, interrupt: Callable[[], None] = lambda: None) -> None:
        self.folder, self.log = os.fspath(folder.resolve()), list[str]()
        self.number, self.interrupt = number, interrupt

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not any(path.startswith(self.folder) for path in written_paths(event, arguments, self.folder)):
            return
        self.log.append(event)
        if len(self.log) == self.number:
            self.interrupt()


def written_paths(event: str, arguments: tuple[Any, ...], folder: str) -> list[str]:
    """Return the absolute paths that an audited event is about to change."""
    if event == "open":
        path, _, flags = arguments
        return [] if isinstance(path, int) or not flags & WRITING else [absolute(path, None)]
    if event == "ctypes.dlsym" and arguments[1] == "renameat2":
        return [folder]  # Which files exchange their names is not told.
    positions = NAMED_PATHS.get(event, ())
    return [absolute(arguments[i], None if j is None else arguments[j]) for i, j in positions]


def absolute(path: str | bytes | os.PathLike[str], folder: int | None) -> str:
    """Return a path from the root on; `folder` is the descriptor of the folder that it starts from."""
    text = os.fsdecode(path)
    if folder is None or folder < 0 or text.startswith("/"):
        return os.path.abspath(text)  # noqa: PTH100 (without looking at the files)
    return f"{os.readlink(f'/proc/self/fd/{folder}')}/{text}"  # noqa: PTH115


def in_child(work: Callable[[], object], output: Path | None = None) -> int:
    """Run `work` in a forked process; see `start` and `ending`."""
    return ending(start(work, output))


def ending(child: int) -> int:
    """Return the exit status of a process, or minus the signal that ended it: 2 after a UserError."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(work: Callable[[], object], output: Path | None = None) -> int:
    """Run `work` in a forked process of one thread; return its number.

    What it prints goes to the file `output`, or nowhere.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            descriptor = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True)
            torch.set_num_threads(1)
            work()
            status = 0
        except UserError as error:
            print(f"error: {error}")
            status = 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def operations(work: Callable[[], object], folder: Path, log: Path) -> list[str]:
    """Return the events by which `work`, in a forked process, changes files below a folder."""

    def count() -> None:
        hook = FileOperations(folder)
        sys.addaudithook(hook)
        work()
        hook.folder = "/nowhere"
        log.with_suffix(".json").write_text(json.dumps(hook.log))

    status = in_child(count, log)
    assert status == 0, log.read_text()
    events: list[str] = json.loads(log.with_suffix(".json").read_text())
    return events


def killed_at(number: int, work: Callable[[], object], folder: Path, log: Path) -> None:
    """Run `work` in a forked process that is killed before its operation of that number (from 1)."""

    def die() -> None:
        kill = partial(os.kill, os.getpid(), signal.SIGKILL)
        sys.addaudithook(FileOperations(folder, number, kill))
        work()

    status = in_child(die, log)
    assert status == -signal.SIGKILL, f"status {status} at operation {number}\n{log.read_text()}"


def fresh(base: Path, work: Path) -> None:
    """Make `work` a copy of `base`, with the times of its files."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work)


def tree(folder: Path) -> dict[str, object]:
    """Return what decides whether two folders are equal: by path, the content without dates and times.

    Folders have None. Every start of a training adds a file of TensorBoard events; these count as one.
    """
    contents: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "tfevents" in path.name:
            contents[f"{Path(name).parent}/events"] = None
        else:
            contents[name] = None if path.is_dir() else content_of(path)
    return contents


def content_of(path: Path) -> object:
    """Return the content of a file without dates and times; raise if it is damaged."""
    if path.suffix == ".json":
        return steady(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [steady(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".pt":
        return content_digest(steady(torch.load(path, weights_only=True)))
    if path.suffix == ".csv":
        rows = [steady(row) for row in csv.DictReader(path.read_text().splitlines())]
        return sorted(rows, key=str)  # The table of runs has the line that was written last at the end.
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            return image.size
    return path.read_bytes()


def steady(values: Any) -> Any:
    """Return nested values without the entries `UNEQUAL`."""
    if isinstance(values, dict):
        return {name: steady(value) for name, value in values.items() if name not in UNEQUAL}
    return [steady(value) for value in values] if isinstance(values, list) else values
