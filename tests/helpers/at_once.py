"""Stages beside others, and where nothing can be written: refused by name, and nothing mixed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from crash import FileOperations, ending, fresh, in_child, start, tree
from crash_stages import STAGES

import ofa.common.locks

PAIRS = (
    ("train", "train_again"),
    ("collect", "search"),
    ("search", "verified_search"),
    ("export", "finetune"),
    ("measure", "measure_more"),
    ("kit", "import_table"),
)
"""Stages that write into the same folders or files, e.g. both trainings into the table of all runs."""


def refusal_problems(
    name: str, number: int, base: Path, folder: Path, expected: dict[str, object]
) -> list[str]:
    """Start a stage twice, the second time while the first pauses before its n-th operation.

    Args:
        name: name of the stage.
        number: number of that operation, which is in the middle of its work.
        base: folder with what the stage needs.
        folder: folder for the work.
        expected: tree after the stage alone.
    """
    work, first_log, second_log = folder / "work", folder / "first", folder / "second"
    fresh(base, work)
    at_work, paused = os.pipe()
    resumed, resume = os.pipe()

    def pause() -> None:
        os.write(paused, b"paused")
        os.read(resumed, 1)

    def work_and_pause() -> None:
        sys.addaudithook(FileOperations(work, number, pause))
        STAGES[name].run(work)

    def work_impatiently() -> None:
        ofa.common.locks.PATIENCE_S = 0.2
        STAGES[name].run(work)

    first = start(work_and_pause, first_log)
    os.read(at_work, 6)
    status = in_child(work_impatiently, second_log)
    os.write(resume, b"1")
    first_status, text = ending(first), second_log.read_text()
    problems = []
    if status != 2 or f"Another process, {first} on " not in text:
        problems.append(f"the second one was not refused by name, status {status}: {text[-600:]}")
    if first_status:
        problems.append(f"the first one ended with {first_status}: {first_log.read_text()[-600:]}")
    if tree(work) != expected:
        problems.append("the result is another one than that of the first alone")
    for file in (first_log, second_log):
        file.unlink()
    for descriptor in (at_work, paused, resumed, resume):
        os.close(descriptor)
    return problems


def pair_problems(names: tuple[str, str], base: Path, folder: Path) -> list[str]:
    """Run two different stages at once; the result has to be that of one after the other."""
    work, logs = folder / "work", [folder / "first", folder / "second"]
    fresh(base, work)
    for name in names:
        assert in_child(lambda name=name: STAGES[name].run(work), logs[0]) == 0, logs[0].read_text()  # type: ignore[misc]
    expected = tree(work)
    fresh(base, work)
    children = [
        start(lambda name=name: STAGES[name].run(work), log)  # type: ignore[misc]
        for name, log in zip(names, logs, strict=True)
    ]
    statuses = [ending(child) for child in children]
    problems = [] if statuses == [0, 0] else [f"{statuses}: {[log.read_text()[-600:] for log in logs]}"]
    found = tree(work)
    differing = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    for log in logs:
        log.unlink()
    return [*problems, *(f"{name} differs" for name in differing)]


def unwritable_problems(name: str, base: Path, folder: Path) -> list[str]:
    """Start a stage where nothing can be written: it has to say so before its work, and to change nothing."""
    work, log = folder / "work", folder / "log"
    fresh(base, work)
    before = tree(work)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    def work_read_only() -> None:
        patch = pytest.MonkeyPatch()
        patch.setattr("ofa.common.locks.FileLock.acquire", refuse)
        patch.setattr("pathlib.Path.touch", refuse)
        STAGES[name].run(work)

    log.unlink(missing_ok=True)
    status = in_child(work_read_only, log)
    text = log.read_text()
    log.unlink()
    problems = [] if tree(work) == before else ["something was written"]
    if status != 2 or "Read-only file system" not in text or "100 %" in text:
        problems.append(f"status {status}: {text[-600:]}")
    return problems
