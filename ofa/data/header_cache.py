"""`HeaderCache`: which files were checked before, a file per image set in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ofa.common.plain_values import parse_json
from ofa.common.reading import read_bytes
from ofa.common.unfinished import remove_leftovers, unfinished_file
from ofa.common.user_folders import cache_folder

VERSION = 1
MAX_CACHE_BYTES = 2**30
"""Largest file of headers; those of ImageNet have 100 MB."""


class CheckedFile(Protocol):
    """What is known of a file that was checked."""

    def values(self) -> list[int]:
        """Return it as a list, for a file."""

    def fits(self, status: os.stat_result) -> bool:
        """Return whether the file has not changed since."""


AnyHeader = TypeVar("AnyHeader", bound=CheckedFile)


@dataclass(frozen=True)
class HeaderCache(Generic[AnyHeader]):
    """The headers of the readable files of one kind, by image set.

    Attributes:
        kind: name of the folder for such files.
        from_values: returns a header from what its `values` returned.
    """

    kind: str
    from_values: Callable[[Sequence[int]], AnyHeader]

    def read(self, root: Path) -> dict[str, AnyHeader]:
        """Return the headers of an image set by path, as last written; empty if there are none."""
        file = self._file(root)
        with suppress(Exception):  # A damaged or foreign file is as good as none.
            values = {}
            if file is not None:
                content = read_bytes(file, f"headers of {self.kind}", max_bytes=MAX_CACHE_BYTES)
                values = parse_json(content)
            if values["version"] == VERSION:
                return {path: self.from_values(entry) for path, entry in values["headers"].items()}
        return {}

    def write(self, root: Path, headers: Mapping[str, AnyHeader]) -> None:
        """Write the headers of an image set; where the folder cannot be written, nothing happens."""
        file = self._file(root)
        if file is None:
            return
        entries = {path: header.values() for path, header in headers.items()}
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(file.parent)
            with unfinished_file(file) as temporary:
                text = json.dumps({"version": VERSION, "root": str(root), "headers": entries})
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(file)

    def _file(self, root: Path) -> Path | None:
        """Return the file of an image set; None for a user without a home folder."""
        folder = cache_folder()
        name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return None if folder is None else folder / self.kind / f"{name}.json"
