"""The measurements of an unfinished table: a JSON-lines file that a restart continues.

The first line identifies the measurement; every further line is one visit (the process that made it, counted
from 0, a workload and its runs), or marks a process as finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from latency_tables.measuring.drift import runs_without_drift
from latency_tables.table.device import DeviceSpec, device_values
from latency_tables.table.timing import check_runs
from ofa.common.config import build, differences
from ofa.common.display import short_repr
from ofa.common.errors import UserError
from ofa.common.plain_values import checked_integer, checked_number, checked_object, checked_text, parse_json
from ofa.common.reading import read_bytes

Identity = Mapping[str, Any]
"""Nested plain values that must be equal for measurements to share a table."""


def refuse_other(path: Path, what: str, identity: Identity, expected: Identity) -> None:
    """Raise if measurements at `path` have another identity; newer settings take their defaults.

    Raises:
        UserError: naming every difference.
    """
    device = build(DeviceSpec, identity.get("device", {}), f"The {what} {path}: device")
    changes = differences({**identity, "device": device_values(device)}, expected)
    if changes:
        raise UserError(
            f"The {what} {path} was measured differently: {'; '.join(changes)}. "
            "Delete it to measure anew, or give another path."
        )


def _header(identity: Identity) -> bytes:
    return json.dumps(identity).encode() + b"\n"


class MeasurementJournal:
    """Visits per process and workload, held in memory and appended to a file; a context that closes it."""

    def __init__(self, path: Path, identity: Identity) -> None:
        """Read the existing file `path`, or create it.

        An incomplete last line is dropped.

        Raises:
            UserError: if the file has another identity, is not a journal, or cannot be written.
        """
        self.path = path
        self._windows: dict[tuple[int, int], list[tuple[str, list[float]]]] = {}
        self._finished: set[int] = set()
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file; move it away to measure.")
        lines = self._read(identity) if path.exists() else []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not lines:
                path.write_bytes(_header(identity))
            elif sum(map(len, lines)) < path.stat().st_size:
                os.truncate(path, sum(map(len, lines)))
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(
                f"Could not write {path}: {error}. Check the permissions and free space."
            ) from error

    def _read(self, identity: Identity) -> list[bytes]:
        """Read and return the complete lines, header first; an empty list without a complete header."""
        content = read_bytes(self.path, "unfinished table")
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        if not lines and not _header(identity).startswith(content):
            raise UserError(f"{self.path} is not an unfinished table; move it away to measure.")
        for index, line in enumerate(lines):
            try:
                values = checked_object(parse_json(line), "the line")
                if index:
                    self._read_visit(values)
            except (ValueError, KeyError, TypeError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise UserError(
                    f"Line {index + 1} of {self.path} is not a measurement ({reason}). "
                    "Delete the file to measure anew."
                ) from error
            if index == 0:
                refuse_other(self.path, "unfinished table", values, identity)
        return lines

    def _read_visit(self, values: Mapping[str, Any]) -> None:
        """Take a line behind the first one.

        Raises:
            KeyError: if a value is missing; ValueError or TypeError if one is wrong.
        """
        process = checked_integer(values["process"], "process")
        if "finished" in values:
            if values["finished"] is not True:
                raise ValueError(f"finished is {short_repr(values['finished'])}; expected true")
            self._finished.add(process)
            return
        window, key = checked_integer(values["window"], "window"), checked_text(values["key"], "key")
        runs_ms = [checked_number(run, "a run") for run in values["runs_ms"]]
        check_runs(key, runs_ms)
        if not runs_ms:
            raise ValueError("runs_ms is empty")
        self._add(process, window, key, runs_ms)

    def _add(self, process: int, window: int, key: str, runs_ms: list[float]) -> None:
        self._windows.setdefault((process, window), []).append((key, runs_ms))

    def visits(self, process: int) -> Mapping[str, list[list[float]]]:
        """Return the runs of each visit of a process, per workload."""
        runs: dict[str, list[list[float]]] = {}
        for (its_process, _), visits in self._windows.items():
            for key, runs_ms in visits if its_process == process else ():
                runs.setdefault(key, []).append(runs_ms)
        return runs

    def is_finished(self, process: int) -> bool:
        """Return whether a process has finished its measurements."""
        return process in self._finished

    def append(self, process: int, visits: Sequence[tuple[str, list[float]]]) -> None:
        """Add a window of visits of a process: pairs of a workload's key and its runs (ms).

        Raises:
            UserError: if the file cannot be written.
        """
        window = len(self._windows)
        for key, runs_ms in visits:
            self._add(process, window, key, runs_ms)
            self._write({"process": process, "window": window, "key": key, "runs_ms": runs_ms})

    def finish(self, process: int) -> None:
        """Mark a process as finished.

        Raises:
            UserError: if the file cannot be written.
        """
        self._finished.add(process)
        self._write({"process": process, "finished": True})

    def _write(self, values: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise UserError(
                f"Could not write {self.path}: {error}. Free some space and start again."
            ) from error

    @property
    def runs(self) -> dict[str, list[list[float]]]:
        """All timed runs (ms) of each workload at a common speed of the machine, one list per process."""
        return runs_without_drift([(name[0], self._windows[name]) for name in sorted(self._windows)])

    def __enter__(self) -> MeasurementJournal:
        """Return the journal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; appended lines stay on disk."""
        self._file.close()
