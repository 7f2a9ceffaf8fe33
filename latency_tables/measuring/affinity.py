"""Pinning of this process to processor cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ofa.common.errors import UserError


@contextlib.contextmanager
def pinned(cores: tuple[int, ...] | None) -> Iterator[None]:
    """Keep all threads of this process, including new ones, on `cores`; None changes nothing.

    Raises:
        UserError: if the system cannot pin processes, or this process may not use all `cores`.
    """
    if cores is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(
            f"affinity is {list(cores)}, but this system cannot pin processes; use affinity: null."
        )
    mask = os.sched_getaffinity(0)
    if not set(cores) <= mask:
        raise UserError(
            f"affinity is {list(cores)}; this process may use the cores {sorted(mask)}. Choose among them, "
            "or use affinity: null."
        )
    _pin(set(cores))
    try:
        yield
    finally:
        _pin(mask)


def _pin(cores: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that ended meanwhile
            os.sched_setaffinity(int(task.name), cores)
