"""The public names that packages hand on: each is there, and no module stands in its place."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.common.lazy import lazy_names

FACES = (
    *("ofa.data", "ofa.evaluation", "ofa.export", "ofa.runs", "ofa.space", "ofa.supernet", "ofa.training"),
    *("predictors", "latency_tables.measuring", "latency_tables.table", "search"),
)
LIGHT_FACES = (
    "ofa.data",
    "ofa.runs",
    "ofa.evaluation",
    "ofa.supernet",
    "ofa.training",
    "predictors",
    "search",
)


@pytest.mark.parametrize("package", FACES)
def test_every_public_name_is_handed_on(package: str) -> None:
    module = importlib.import_module(package)
    for info in pkgutil.iter_modules(module.__path__, f"{package}."):
        if package.startswith(("ofa.", "predictors")):
            importlib.import_module(info.name)
    for name in module.__all__:
        value = getattr(module, name)
        assert not isinstance(value, type(sys)), f"{package}.{name} is a module"


def test_an_unknown_name_is_the_usual_error() -> None:
    get = lazy_names("ofa.data", {"base": ["ImageData"]})
    assert get("ImageData").__name__ == "ImageData"
    with pytest.raises(AttributeError, match=r"module 'ofa\.data' has no attribute 'ImageDate'"):
        get("ImageDate")


def test_packages_are_light_until_a_name_is_used(root: Path) -> None:
    code = f"import sys, {', '.join(LIGHT_FACES)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
