"""The measurements so far, saved line by line, and their latencies."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from kit_folder import RUNS, KitError

LATENCY_SHARE = 0.25  # a latency is this quantile of the runs


class Runs:
    """The visits so far: a file of JSON lines, and `visits`, a list in the same order.

    A visit is [process, key of the program, milliseconds of its runs, seconds of the visit].
    """

    def __init__(self, header: dict[str, Any]) -> None:
        """Read the file, or create it; an incomplete line is dropped."""
        self.visits: list[list[Any]] = []
        self._spent_s: dict[int, float] = {}
        self._finished: set[int] = set()
        self._file = RUNS.open("a+b", buffering=0)
        self._lock()
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        complete_lines = lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
        if len(complete_lines) < len(lines):
            self._file.truncate(sum(map(len, complete_lines)))
        if not complete_lines:
            self._write(header)
        for index, line in enumerate(complete_lines):
            try:
                values = json.loads(line.decode())
                if index:
                    self._record(
                        values["process"], values["key"], list(map(float, values["runs_ms"])), values["s"]
                    )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise KitError(
                    f"Line {index + 1} of {RUNS} is damaged ({error}). Delete the file."
                ) from error
            if not index and values != header:
                differing = sorted(
                    k for k in header if not isinstance(values, dict) or values.get(k) != header[k]
                )
                raise KitError(
                    f"{RUNS} was measured with another {', '.join(differing)}. Go on with the same settings, "
                    "or delete the file to measure anew."
                )

    def _lock(self) -> None:
        """Exclude a second process, if the system supports it."""
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise KitError(
                "Another measure.py is running in this folder. Wait for it, or stop it."
            ) from error

    def _write(self, values: dict[str, Any]) -> None:
        self._file.write((json.dumps(values) + "\n").encode())

    def _record(self, process: int, key: str, runs_ms: list[float], seconds: float) -> None:
        if not key:
            self._finished.add(process)
            return
        self.visits.append([process, key, runs_ms, seconds])
        self._spent_s[process] = self.spent(process) + seconds

    def add(self, process: int, key: str, runs_ms: list[float], seconds: float) -> None:
        """Add a visit."""
        for run in runs_ms:
            if not 0 < run < math.inf:
                raise KitError(f"A run of {key} took {run} ms by the clock; expected a number above 0.")
        rounded = [float(f"{run:.6g}") for run in runs_ms]
        self._write({"process": process, "key": key, "runs_ms": rounded, "s": seconds})
        self._record(process, key, rounded, seconds)

    def spent(self, process: int) -> float:
        """Return the seconds of measuring by a process so far."""
        return self._spent_s.get(process, 0.0)

    def finish(self, process: int) -> None:
        """Mark a process as complete."""
        self._write({"process": process, "key": "", "runs_ms": [], "s": 0.0})
        self._record(process, "", [], 0.0)

    def finished(self, process: int) -> bool:
        """Return whether a process is complete."""
        return process in self._finished


def quantile(values: list[float]) -> float:
    """Return the latency (ms) of runs (ms)."""
    return float(np.percentile(values, 100 * LATENCY_SHARE))


def relative_error(latencies: list[float]) -> float:
    """Return the relative standard error of the latency over visits with these latencies."""
    count = len(latencies)
    if count < 5:
        return math.inf
    ordered = sorted(latencies)
    middle, width = LATENCY_SHARE * (count - 1), math.sqrt(count * LATENCY_SHARE * (1 - LATENCY_SHARE))
    low, high = max(0, math.floor(middle - width)), min(count - 1, math.ceil(middle + width))
    return (ordered[high] - ordered[low]) / 2 / quantile(ordered)
