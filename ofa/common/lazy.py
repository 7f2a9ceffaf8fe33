"""Public names of a package that are imported when they are first used, so that the package stays light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that hands on names of its modules.

    Args:
        package: full name of the package.
        names: public names by the module below the package that defines them. No module of the package may
            have a public name: importing that module would put it in the name's place.
    """
    modules = {name: module for module, module_names in names.items() for name in module_names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get
