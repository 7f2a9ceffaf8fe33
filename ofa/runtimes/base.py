"""`Runtime`: what an inference engine offers, so that tables and bundles convert and run in the same way."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ofa.errors import UserError

Files = dict[str, bytes]
"""Content by file name; the first file is the one that a user opens."""

Logits = Callable[[Tensor], Tensor]
"""Maps images (n, channels, h, w) to the network's output."""

Offers = Mapping[str, tuple[str, ...]]
"""Precisions by accelerator."""

_LOGGERS = ("torch", "onnxscript", "onnx_ir", "executorch", "nncf")


class Session(Protocol):
    """A loaded network; calling it is `Logits`, with an output of its own memory."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return the float32 output for float32 images."""
        ...

    def bind(self, images: Tensor) -> Callable[[], object]:
        """Return one run on these images, as short as the engine allows: what is timed.

        The images are handed over without copies where the engine can, and the output stays where the
        engine puts it. The result holds for as long as the session.
        """
        ...


@dataclass(frozen=True)
class Runtime:
    """One inference engine.

    Attributes:
        title: its name for people.
        packages: modules that must be installed.
        extra: the extra of this project that installs them.
        offers: returns the precisions by accelerator, here and now; called when the packages are there.
        convert: takes a network, an example input and a precision; returns files of fixed input shape. The
            network is left as it is: it is copied, always in eval mode.
        load: takes the folder of the files, the threads that a run may use, the precision and the
            accelerator.
        facts: returns version and whatever else makes latencies comparable.
        one_image: whether it runs only one image at a time.
    """

    title: str
    packages: tuple[str, ...]
    extra: str
    offers: Callable[[], Offers]
    convert: Callable[[nn.Module, Tensor, str], Files]
    load: Callable[[Path, int, str, str], Session]
    facts: Callable[[], dict[str, str]]
    one_image: bool = False


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Return those of the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def check_packages(packages: tuple[str, ...], what: str, extra: str, otherwise: str = "") -> None:
    """Check that optional packages are installed.

    Raises:
        UserError: naming those that are missing, the `extra` that installs them, and what else to do.
    """
    if missing := missing_packages(packages):
        *first, last = missing
        names = f"{', '.join(first)} and {last}" if first else last
        raise UserError(f"{what} needs {names}; install with: pip install -e '.[{extra}]'{otherwise}")


def offered_text(offers: Offers) -> str:
    """Return for instance "fp32, bf16 on cpu"."""
    return "; ".join(f"{', '.join(precisions)} on {place}" for place, precisions in offers.items())


def write_files(folder: Path, files: Files) -> None:
    """Write the files into a folder; their names may hold folders of their own."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def each_image(logits: Logits) -> Logits:
    """Return `logits` for any number of images from one that takes a single image."""

    def run(images: Tensor) -> Tensor:
        return torch.cat([logits(images[i : i + 1]) for i in range(len(images))])

    return run


def does_not_load(title: str, package: str, error: Exception) -> UserError:
    """Return the error of an installed package that cannot be imported."""
    version = importlib.metadata.version(package)
    return UserError(
        f"{title} {version} is installed but does not load with PyTorch {torch.__version__}: {error}. "
        "Install the version made for this PyTorch, or choose another engine."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the notes that exporters and engines write about their own inside."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
