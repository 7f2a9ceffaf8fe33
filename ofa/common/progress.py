"""Progress bars with time left. The library reports progress; the caller displays it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

ProgressCallback = Callable[[int, int, str], None]
"""Called as (finished steps, total steps, short status text)."""

# Seconds between lines where the output is a file and a bar cannot be redrawn.
LINE_INTERVAL_S = 20.0
FILE_WIDTH = 100


Note = Callable[[str], object]
"""Takes a line for the user: what begins, or what came of it."""


def unnoted(text: str) -> None:
    """Drop a line for the user."""


def duration_text(seconds: float) -> str:
    """Return a duration as people say it: "40 s", "12 min", "1 h 5 min"."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def silent(done: int, total: int, text: str) -> None:
    """Ignore the progress."""


def table_console() -> Console:
    """Return a console for tables: as wide as the terminal, or 100 columns where the output is a file.

    Brackets in names are no markup of it.
    """
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=FILE_WIDTH, markup=False)


@contextmanager
def progress_bar(description: str, visible: bool = True) -> Iterator[ProgressCallback]:
    """Yield a callback that draws a bar with percentage, elapsed time, time left and the text.

    Where the output is not a terminal, it prints a line every `LINE_INTERVAL_S` seconds instead. With
    `visible=False`, as in all but the first process, it prints nothing.
    """
    if not visible:
        yield silent
        return
    console = Console()
    if not console.is_terminal:
        yield _line_reporter(description, console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=None, text="")

        def report(done: int, total: int, text: str) -> None:
            progress.update(task, completed=done, total=total, text=text)

        yield report


def _line_reporter(description: str, console: Console) -> ProgressCallback:
    start = time.monotonic()
    last_s = start
    first_report: tuple[float, int] | None = None

    def report(done: int, total: int, text: str) -> None:
        nonlocal last_s, first_report
        now = time.monotonic()
        # Steps before the first report may be those of an earlier start.
        first_report = first_report or (now, done)
        if now - last_s < LINE_INTERVAL_S and done < total:
            return
        last_s = now
        rate = (done - first_report[1]) / max(now - first_report[0], 1e-9)
        remaining_text = f"{duration_text((total - done) / rate)} left" if rate > 0 else "time left unknown"
        share = f"{100 * done / max(total, 1):3.0f} %"
        line = f"{description} {share} {duration_text(now - start)}, {remaining_text} {text}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return report
