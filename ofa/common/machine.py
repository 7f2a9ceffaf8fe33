"""What this process may use of the machine: processors and memory, inside the limits of its container.

A container sees all processors and all memory of its host; what it may use stands in the files of its control
group (version 2, or 1 in older systems).
"""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def num_processors(root: Path = _ROOT) -> int:
    """Return how many processors this process may use, at least 1.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _processor_quotas(root)]
    return max(min([count, *quotas]), 1)


def available_memory_bytes(root: Path = _ROOT) -> int | None:
    """Return how much more memory this process may use; None where that is not known.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    amounts = [*_machine_memory(root), *_group_memory(root), *_address_space(root)]
    return max(min(amounts), 0) if amounts else None


def allow_open_files() -> None:
    """Let this process open as many files as the machine's administrator allows.

    Data workers hand batches over by file descriptors; shells often allow 256 or 1,024 of them.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def num_free_files() -> int:
    """Return how many more files this process may open."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return sys.maxsize
    num_open = 0
    with suppress(OSError):
        num_open = len(list(Path("/proc/self/fd").iterdir()))
    return max(soft_limit - num_open, 0)


def _processor_quotas(root: Path) -> Iterator[float]:
    for folder in _group_folders(root, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            yield int(quota) / int(period)  # "max" is no number: no limit.
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota_us = _number(folder / "cpu.cfs_quota_us")
            if quota_us > 0:
                yield quota_us / _number(folder / "cpu.cfs_period_us")


def _group_memory(root: Path) -> Iterator[int]:
    for folder in _group_folders(root, "memory"):
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):
                # Pages of files that can be given up at once are free.
                free_pages = _entry(folder / "memory.stat", "inactive_file")
                yield _number(folder / limit) - _number(folder / usage) + free_pages


def _machine_memory(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):
        if available_kib := _entry(root / "proc" / "meminfo", "MemAvailable:"):
            yield available_kib * 1024


def _address_space(root: Path) -> Iterator[int]:
    """Yield what `ulimit -v` leaves."""
    max_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    if max_bytes != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            yield max_bytes - _entry(root / "proc" / "self" / "status", "VmSize:") * 1024


def _group_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those around it."""
    groups = root / "sys" / "fs" / "cgroup"
    with suppress(OSError, ValueError):
        for line in (root / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = groups / controller if controllers else groups
            # In a container the name may be that outside of it; its own group is then the top.
            path = Path(name.lstrip("/"))
            yield from (top / folder for folder in (path, *path.parents))


def _number(file: Path) -> int:
    return int(file.read_text(encoding="utf-8"))


def _entry(file: Path, name: str) -> int:
    """Return the number behind `name` in a file of such lines; 0 if it lacks."""
    for line in file.read_text(encoding="utf-8").splitlines():
        key, *values = line.split()
        if key == name:
            return int(values[0])
    return 0
