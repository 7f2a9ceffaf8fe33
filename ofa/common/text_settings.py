"""Kinds of settings: names of files and folders, paths, and groups of settings that have a short form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ofa.common.errors import UserError

MAX_NAME_BYTES = 120
"""Longest name; file systems take 255 bytes, and stages add endings and temporary parts."""


@dataclass(frozen=True)
class TextKind:
    """What a text setting has to be.

    Attributes:
        read: returns the value of a text; raises UserError for a wrong one.
    """

    read: Callable[[str], str]


@dataclass(frozen=True)
class ShortForm:
    """Marks a group of settings whose name alone stands for one of them: `model=X` is `model.name=X`.

    Attributes:
        setting: name of that setting.
    """

    setting: str


@dataclass(frozen=True)
class OpenGroup:
    """Marks a mapping to which settings of any name may be added: `model.kwargs.num_classes=10`."""


@dataclass(frozen=True)
class Implied:
    """Marks a group of settings whose name, once given, sets others that are not given.

    Attributes:
        settings: their values by name.
    """

    settings: Mapping[str, str]


@dataclass(frozen=True)
class StandsFor:
    """Marks a setting that is replaced by others, as far as these are not given.

    Attributes:
        settings_of: returns their values by name for a value of the setting.
    """

    settings_of: Callable[[str], Mapping[str, str]]


def checked_name(name: str, kind: str = "name") -> str:
    """Return `name` if a file or folder inside one of the project's folders can be called so.

    Raises:
        UserError: for an empty name, one that leaves its folder, is hidden, cannot be seen or is too long.
    """
    problem = _name_problem(name)
    if problem:
        raise UserError(f"{name!r} is no {kind}: it {problem}.")
    return name


def _name_problem(name: str) -> str:
    if not name.strip():
        return "is empty"
    if "/" in name or "\\" in name:
        return "contains a separator of folders; a name stays in its folder"
    if name.startswith("."):
        return "begins with a dot, as hidden files do"
    if name != name.strip():
        return "begins or ends with a space"
    if not name.isprintable():
        return "contains characters that cannot be printed"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has {len(name.encode())} bytes; expected at most {MAX_NAME_BYTES}"
    return ""


def expanded_path(path: str) -> str:
    """Return the path with `~` and `~user` as the home folders that they stand for.

    Raises:
        UserError: if the path is empty, or there is no such user.
    """
    if not path:
        raise UserError("the path is empty; a dot stands for the present folder.")
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        raise UserError(f"{path!r} cannot be expanded: {error}") from error


Name = Annotated[str, TextKind(checked_name)]
"""A setting that names a run, a result, a bundle or a device: one file or folder."""

PathText = Annotated[str, TextKind(expanded_path)]
"""A setting that is a path, or a name where there is no such path."""
