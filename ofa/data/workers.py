"""Worker processes that decode images: they survive signals to the group, and end with their parent."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Generator, Iterator
from functools import cache
from typing import Any
from weakref import WeakSet

from torch.utils.data import DataLoader


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return an iterator over `loader` whose workers end with it, and at the latest with this process."""
    batches = _iterate(loader)
    _open_iterators().add(batches)
    return batches


def _iterate(loader: DataLoader[Any]) -> Generator[Any]:
    yield from loader


def ignore_stop_signals(worker: int) -> None:
    """Ignore stop signals in a worker: the training process still has to save a checkpoint.

    A pre-emption or Ctrl-C signals the whole process group. Workers without a parent exit by themselves.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@cache
def _open_iterators() -> WeakSet[Generator[Any]]:
    """Return the iterators whose workers may still run; those left when the process ends are closed.

    An error that nobody catches keeps its iterator until then. Python would next ask the workers to end by a
    signal, which they ignore, and wait for them.
    """
    iterators: WeakSet[Generator[Any]] = WeakSet()

    def close() -> None:
        for iterator in list(iterators):
            iterator.close()

    atexit.register(close)
    return iterators
