"""Progress with time left, shown by whoever calls the library; the library only reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

ProgressCallback = Callable[[int, int, str], None]
"""Takes the steps done, their total, and a short text on the present state."""


def silent(done: int, total: int, text: str) -> None:
    """Report nothing."""


@contextmanager
def progress_bar(description: str) -> Iterator[ProgressCallback]:
    """Yield a callback that draws a bar with count, elapsed time, time left and the text."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(description, total=None, text="")

        def report(done: int, total: int, text: str) -> None:
            progress.update(task, completed=done, total=total, text=text)

        yield report
