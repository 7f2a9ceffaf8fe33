"""Code of the user's own, `package.module:name`: how it is imported, and whether it was named here."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ofa.common.display import listed_names, short_text
from ofa.common.errors import UserError
from ofa.common.remembered import is_remembered, remember

_PACKAGE = f"{Path(__file__).resolve().parents[1]}/"


@contextmanager
def present_folder_first() -> Iterator[None]:
    """Import as `python -m` would: from the present folder first, which stays on the path, at its end."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # For what the code imports later.


def own_value(name: str, expected: str) -> Any:
    """Return what a user's module calls by a name; the module's code runs.

    Args:
        name: "package.module:name"; the name may have dots.
        expected: what has to be called so, e.g. "a function that returns a network".

    Raises:
        UserError: for an unknown module or name, with similar ones; for a module that fails, with its error
            and line; and for a value that cannot be called.
    """
    module_name, _, path = name.partition(":")
    value: Any = _own_module(module_name, name)
    where = f"module {module_name}"
    for part in path.split("."):
        if not hasattr(value, part):
            raise unknown_part(f"name in {where}", part, [n for n in dir(value) if not n.startswith("_")])
        value, where = getattr(value, part), f"{where}:{part}"
    if not callable(value):
        raise UserError(f"{name} is of type {type(value).__name__}; expected {expected}.")
    return value


def _own_module(module_name: str, name: str) -> Any:
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise UserError(
            f"{module_name!r} is a file; a module is named from the present folder on: "
            f"{dotted}:{name.partition(':')[2]}"
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise UserError(f"Module {module_name} cannot be imported: {failure_text(error)}") from error
        parent, _, last = missing.rpartition(".")
        folders = getattr(sys.modules.get(parent), "__path__", None) if parent else [str(Path.cwd())]
        names = [module.name for module in pkgutil.iter_modules(folders)]
        kind = f"module in {parent}" if parent else "module"
        raise unknown_part(kind, last, names) from error
    except Exception as error:  # Whatever the module raises.
        raise UserError(f"Module {module_name} cannot be imported: {failure_text(error)}") from error


def failure_text(error: Exception) -> str:
    """Return type and first line of an error, and the innermost line outside this project and PyTorch."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    place = ""
    if isinstance(error, SyntaxError):
        place = f"{Path(error.filename or '').name}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        others = ("/torch/", "<frozen", _PACKAGE)
        lines = [frame for frame in frames if not any(part in frame.filename for part in others)]
        place = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else ""
    what = short_text(f"{type(error).__name__}: {text}".removesuffix(": "), 300)
    return f"{what}{f' ({place})' if place else ''}"


def unknown_part(kind: str, name: str, known_names: Collection[str]) -> UserError:
    """Return the error for an unknown name, with the closest ones; with all where they are few."""
    matches = difflib.get_close_matches(name, known_names, n=5, cutoff=0.5)
    hint = f"similar: {', '.join(matches)}" if matches else f"known: {listed_names(sorted(known_names))}"
    return UserError(f"Unknown {kind} {name!r}; {hint or 'none'}.")


def check_reference(setting: str, name: str, example: str) -> list[str]:
    """Return what is wrong with a setting that names code of the user's own; empty if nothing is.

    Args:
        setting: name of the setting in the text.
        name: its value.
        example: a right value.
    """
    module, _, path = name.partition(":")
    return [] if module and path else [f"{setting} is {name!r}; expected {example}."]


# -- what was named on this machine ----------------------------------------------------------------


def is_known(kind: str, name: str, kwargs: Mapping[str, Any] | None = None) -> bool:
    """Return whether code was named with these arguments on this machine before; see `make_known`."""
    return is_remembered(kind, _digest(name, kwargs or {}))


def make_known(kind: str, name: str, kwargs: Mapping[str, Any] | None = None) -> None:
    """Remember that the user has named code, which files may name from then on.

    Args:
        kind: what it is, e.g. "tasks".
        name: "package.module:name".
        kwargs: arguments that it is called with; None for none.
    """
    remember(kind, _digest(name, kwargs or {}))


def _digest(name: str, kwargs: Mapping[str, Any]) -> str:
    text = json.dumps([name, dict(kwargs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
