"""NumPy's scalars in files of tensors: read as plain numbers, without running what a file names."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

_KINDS = "biuf"


class NumberType:
    """Stands for `numpy.dtype` while a file is read; types other than plain numbers are refused."""

    def __init__(self, code: str, *_: object) -> None:
        """Take NumPy's code of the type, e.g. "f8"."""
        self.dtype = np.dtype(code)
        if self.dtype.kind not in _KINDS:
            raise pickle.UnpicklingError(f"a NumPy scalar of type {code!r}; expected a number")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Take the byte order; the other values belong to types of several fields."""
        self.dtype = self.dtype.newbyteorder("=" if state[1] == "|" else str(state[1]))  # type: ignore[arg-type]


def number(kind: NumberType, content: bytes) -> float:
    """Return the plain number whose bytes are `content`."""
    value: float = np.frombuffer(content, kind.dtype, 1)[0].item()
    return value


SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (NumberType, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
]
"""What replaces the names by which files refer to NumPy: arguments of `torch.serialization.safe_globals`."""
