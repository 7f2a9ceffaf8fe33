"""A way of several steps: its plan with the time of each, and going it with the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ofa.common.progress import duration_text


@dataclass(frozen=True)
class Step:
    """One step of a way: its title, about how many seconds it takes, and what does it."""

    title: str
    seconds: float
    run: Callable[[], object]


def steps_table(steps: Sequence[Step], caption: str) -> Table:
    """Return the plan of a way: its steps, and how long each and all take."""
    table = Table(title="The plan", caption=caption)
    table.add_column("step")
    table.add_column("about", justify="right")
    for number, step in enumerate(steps, 1):
        table.add_row(f"{number} {step.title}", duration_text(step.seconds))
    table.add_row("in all", duration_text(sum(step.seconds for step in steps)))
    return table


def run_steps(steps: Sequence[Step], console: Console) -> None:
    """Do the steps in their order, each under a line with its title and the time that is left for all."""
    for number, step in enumerate(steps, 1):
        left_s = sum(later.seconds for later in steps[number - 1 :])
        console.rule(f"{number}/{len(steps)} {step.title}; all that is left: {duration_text(left_s)}")
        step.run()
