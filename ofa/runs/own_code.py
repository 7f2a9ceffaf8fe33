"""Code of the user's own that the images of a run need: it is called only if the user named it here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ofa.common.command_line import command_line, flattened
from ofa.common.errors import UserError
from ofa.common.own_code import is_known, make_known
from ofa.data.settings import DataSettings

_TASKS, _DATA = "tasks", "data_functions"


def name_own_code(settings: DataSettings) -> None:
    """Remember the task and the function of images that the user named on a command line."""
    if settings.task is not None:
        make_known(_TASKS, settings.task)
    if settings.source is not None:
        make_known(_DATA, settings.source, settings.kwargs)


def with_task(settings: DataSettings | None, task: str | None) -> DataSettings | None:
    """Return the settings of images, if there are any, for the task that the user named, if there is one."""
    return settings if settings is None or task is None else dataclasses.replace(settings, task=task)


def check_own_code(settings: DataSettings, path: Path, task: str | None = None) -> None:
    """Raise the error for settings of a file whose code the user has not named on this machine.

    Args:
        settings: settings of images.
        path: file that holds them.
        task: task that the user names now, which is remembered if it is that of the settings.

    Raises:
        UserError: naming the code, and how to name it; or if the task is another one.
    """
    if task is not None and task != settings.task:
        own = "that of its images" if settings.task is None else settings.task
        raise UserError(
            f"The run of {path} was made with another task than {task}: {own}. Leave task out, or give "
            f"images by themselves, e.g. data={settings.name}."
        )
    if task is not None:
        make_known(_TASKS, task)
    if settings.task is not None and not is_known(_TASKS, settings.task):
        raise _not_named(f"The task is {settings.task}", path, {"task": settings.task, "run_name": "VALUE"})
    if settings.source is not None and not is_known(_DATA, settings.source, settings.kwargs):
        given = {"data": settings.name, "data.source": settings.source, "task": settings.task}
        named = flattened({"data.kwargs": settings.kwargs})
        raise _not_named(f"The images are made by {settings.source}", path, {**given, **named})


def _not_named(what: str, path: Path, settings: dict[str, object]) -> UserError:
    settings = {name: value for name, value in settings.items() if value is not None}
    return UserError(
        f"{what}, and {path} was not made on this machine. Code that a file names can do anything; if you "
        f"know and trust it, name it yourself once, which runs it: "
        f"{command_line('evaluate', {**settings, 'bundle': 'VALUE'})}"
    )
