"""Files that are read: bounded in size and depth, with plain values; anything else is refused by name.

Every reader of this project begins here or, for files of tensors, in `ofa.common.tensors`: a file may come
from another person, be damaged, or be no such file at all.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ofa.common.damage import json_damage
from ofa.common.display import printable_text, short_repr, short_text
from ofa.common.errors import UserError
from ofa.common.plain_values import MAX_DEPTH, parse_json, plain_values

MAX_TEXT_BYTES = 2**25
"""Largest file of text or JSON; records of a thousand networks have 1 MB."""

MAX_YAML_BYTES = 2**22
"""Largest YAML file: its parser takes a second for a megabyte; published tables have a third of one."""

MAX_YAML_EVENTS = 500_000
"""Most values, beginnings and ends in a YAML file; published tables have some 20,000."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is not part of every installation


def is_file(path: Path) -> bool:
    """Return whether there is a file at `path`, or a link to one; false for names that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_bytes(
    path: Path, what: str, *, stage: str = "", advice: str = "", max_bytes: int = MAX_TEXT_BYTES
) -> bytes:
    """Return the content of a file.

    Args:
        path: the file.
        what: name of such a file in error texts, e.g. "latency table".
        stage: sub-command that makes such a file; see `UserError`.
        advice: sentence that ends the error texts.
        max_bytes: largest size.

    Raises:
        UserError: if there is no such file, it is larger, or it cannot be read.
    """
    if not is_file(path):
        raise UserError(f"No {what} at {path}. {advice}".rstrip(), stage=stage)
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            content = file.read(num_bytes) if num_bytes <= max_bytes else b""
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.", stage=stage) from error
    if num_bytes > max_bytes:
        raise UserError(
            f"The {what} {path} has {num_bytes / 1e6:,.0f} MB; expected at most {max_bytes / 1e6:,.0f} MB. "
            f"{advice}".rstrip(),
            stage=stage,
        )
    return content


def read_text(path: Path, what: str, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return the text (UTF-8) of a file, without control characters; see `read_bytes`.

    Raises:
        UserError: if there is no such file, or it holds no text.
    """
    content = read_bytes(path, what, max_bytes=max_bytes)
    try:
        return printable_text(content.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.") from error


def read_json(path: Path, what: str, stage: str = "", advice: str = "") -> dict[str, Any]:
    """Return the JSON object in `path`; its values are those of `parse_json`.

    Args:
        path: the file.
        what: name of such a file in error texts, e.g. "latency table".
        stage: sub-command that makes such a file; see `UserError`.
        advice: sentence that ends the error texts.

    Raises:
        UserError: if the file is missing, truncated, not a JSON object or no plain values.
    """
    content = read_bytes(path, what, stage=stage, advice=advice)
    try:
        values = parse_json(content)
    except ValueError as error:
        raise UserError(
            f"The {what} {path} {json_damage(error)}. {advice}".rstrip(),
            stage=stage,
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"The {what} {path} holds a {type(values).__name__}; expected a JSON object.")
    return values


def read_yaml(path: Path, what: str) -> Any:
    """Return the plain values of a YAML file; see `plain_values`.

    Aliases are refused: a few hundred bytes of them can stand for more values than any memory holds.

    Raises:
        UserError: if the file is missing, no YAML, has aliases, or no plain values.
    """
    content = read_bytes(path, what, max_bytes=MAX_YAML_BYTES)
    try:
        text = content.decode()
        _check_events(text)
        return plain_values(yaml.load(text, _YAML_LOADER))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"The {what} {path} cannot be read as YAML ({reason}); it may be truncated."
        ) from error


def _check_events(text: str) -> None:
    depth = 0
    for number, event in enumerate(yaml.parse(text, _YAML_LOADER)):
        if number == MAX_YAML_EVENTS:
            raise ValueError(f"it holds more than {MAX_YAML_EVENTS:,} values, lists and objects")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it refers to a value of its own, *{short_text(event.anchor)}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def path_inside(folder: Path, name: str, what: str) -> Path:
    """Return the path of the file that another file names, in its folder or below.

    Args:
        folder: folder that the file must not leave, neither by its name nor by a link.
        name: path relative to the folder, with / between its parts.
        what: what names the file, for the error text, e.g. "bundle".

    Raises:
        UserError: for a path that leaves the folder, or that no file can have.
    """
    parts = PurePosixPath(name).parts
    path = folder / name
    try:
        is_inside = bool(parts) and not {"..", "/"} & set(parts) and "\\" not in name and ":" not in parts[0]
        is_inside = is_inside and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name too long, with a zero byte, or links in a circle
        is_inside = False
    if not is_inside:
        raise UserError(
            f"The {what} {folder} names the file {short_repr(name)}, which is not inside that folder."
        )
    return path
