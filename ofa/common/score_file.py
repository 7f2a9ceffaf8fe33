"""`ScoreFile`: numbers by name that are kept in a file of JSON lines as soon as they are known."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.files import append_line
from ofa.common.plain_values import checked_number, checked_object, checked_text, parse_json
from ofa.common.reading import read_bytes


class ScoreFile:
    """Numbers by name, each computed once; what is computed stays on disk when the process is killed.

    What the numbers depend on is not in the file: whoever opens it has to know that they are the right ones.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the file, if there is one. An incomplete last line is dropped.

        Args:
            path: the file; None to keep the numbers in memory alone.

        Raises:
            UserError: if a line is damaged, or the file cannot be read or written.
        """
        self._path = path
        self._values: dict[str, float] = {}
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        content = read_bytes(path, "file of scores")
        size = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:size].splitlines(), start=1):
            try:
                values = checked_object(parse_json(line), "the line")
                self._values[checked_text(values["name"], "name")] = checked_number(values["value"], "value")
            except (ValueError, KeyError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else error
                raise UserError(
                    f"Line {number} of {path} is no score ({reason}). Delete the file to measure anew."
                ) from error
        if size < len(content):
            try:
                os.truncate(path, size)
            except OSError as error:
                raise UserError(f"Could not write {path}: {error}. Check the permissions.") from error

    def __contains__(self, name: str) -> bool:
        """Return whether a number is known."""
        return name in self._values

    def __getitem__(self, name: str) -> float:
        """Return a number that is known."""
        return self._values[name]

    def __len__(self) -> int:
        """Return how many numbers are known."""
        return len(self._values)

    def value(self, name: str, compute: Callable[[], float]) -> float:
        """Return a number; one that is not known yet is computed, and kept.

        Raises:
            UserError: if the file cannot be written.
        """
        if name not in self._values:
            self.add(name, compute())
        return self._values[name]

    def add(self, name: str, value: float) -> None:
        """Keep a number.

        Raises:
            UserError: if the file cannot be written.
        """
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                append_line(self._path, json.dumps({"name": name, "value": float(value)}).encode() + b"\n")
            except OSError as error:
                raise UserError(
                    f"Could not write {self._path}: {error}. Check the permissions and free space; the "
                    f"{len(self)} scores in it are kept."
                ) from error
        self._values[name] = float(value)
