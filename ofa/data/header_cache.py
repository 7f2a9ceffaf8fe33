"""Which pictures were checked before: one file per image set in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ofa.common.plain_values import parse_json
from ofa.common.reading import read_bytes
from ofa.data.header import Header

VERSION = 1
MAX_CACHE_BYTES = 2**30
"""Largest file of headers; those of ImageNet have 100 MB."""


def cache_folder() -> Path:
    """Return the user's cache folder of this project: `$XDG_CACHE_HOME/ofa`, or `~/.cache/ofa`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ofa"


def read_headers(root: Path) -> dict[str, Header]:
    """Return the headers of readable pictures by path, as last written; empty if there are none."""
    with suppress(Exception):  # A damaged or foreign file is as good as none.
        values = parse_json(read_bytes(_file(root), "headers of pictures", max_bytes=MAX_CACHE_BYTES))
        if values["version"] == VERSION:
            return {path: Header.from_values(entry) for path, entry in values["headers"].items()}
    return {}


def write_headers(root: Path, headers: Mapping[str, Header]) -> None:
    """Write the headers of readable pictures; where the folder cannot be written, nothing happens."""
    file = _file(root)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    entries = {path: header.values() for path, header in headers.items()}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps({"version": VERSION, "root": str(root), "headers": entries}))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _file(root: Path) -> Path:
    name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache_folder() / "pictures" / f"{name}.json"
