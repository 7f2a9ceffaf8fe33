"""Which pictures were checked before: one file per image set in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ofa.common.plain_values import parse_json
from ofa.common.reading import read_bytes
from ofa.common.unfinished import remove_leftovers, unfinished_file
from ofa.common.user_folders import cache_folder
from ofa.data.header import Header

VERSION = 1
MAX_CACHE_BYTES = 2**30
"""Largest file of headers; those of ImageNet have 100 MB."""


def read_headers(root: Path) -> dict[str, Header]:
    """Return the headers of readable pictures by path, as last written; empty if there are none."""
    file = _file(root)
    with suppress(Exception):  # A damaged or foreign file is as good as none.
        values = {}
        if file is not None:
            values = parse_json(read_bytes(file, "headers of pictures", max_bytes=MAX_CACHE_BYTES))
        if values["version"] == VERSION:
            return {path: Header.from_values(entry) for path, entry in values["headers"].items()}
    return {}


def write_headers(root: Path, headers: Mapping[str, Header]) -> None:
    """Write the headers of readable pictures; where the folder cannot be written, nothing happens."""
    file = _file(root)
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


def _file(root: Path) -> Path | None:
    """Return the file of an image set; None for a user without a home folder."""
    folder = cache_folder()
    name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return None if folder is None else folder / "pictures" / f"{name}.json"
