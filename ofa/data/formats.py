"""The endings of the pictures that can be read on this machine."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache

from PIL import features

ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".gif"),
)
# Endings that this build of Pillow may lack, by the name of the feature.
FEATURE_ENDINGS = {"webp": (".webp",), "avif": (".avif",)}
HEIF_ENDINGS = (".heic", ".heif")
HEIF_MODULE = "pillow_heif"


def readable_endings() -> tuple[str, ...]:
    """Return the endings of readable files in lower case, each with its dot."""
    endings = list(ENDINGS)
    for feature, names in FEATURE_ENDINGS.items():
        if features.check(feature):
            endings += names
    if importlib.util.find_spec(HEIF_MODULE) is not None:
        endings += HEIF_ENDINGS
    return tuple(endings)


def remedy_for(ending: str) -> str:
    """Return how files with an ending become readable, for notes; empty if nothing is known."""
    if ending in HEIF_ENDINGS:
        return "pip install '.[heic]' reads them"
    if any(ending in names for names in FEATURE_ENDINGS.values()):
        return "a newer Pillow reads them"
    return ""


def register_optional_formats(path: str) -> None:
    """Make Pillow read the file at `path` if it needs an optional package that is installed."""
    if path.lower().endswith(HEIF_ENDINGS):
        _register_heif()


@cache
def _register_heif() -> None:
    if importlib.util.find_spec(HEIF_MODULE) is not None:
        importlib.import_module(HEIF_MODULE).register_heif_opener()
