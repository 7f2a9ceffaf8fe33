"""`Runtime`: the one record of an inference engine; formats, kits, READMEs and measured engines follow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ofa.common.errors import UserError

Files = dict[str, bytes]
"""Content by file name; the first file is the one that a user opens."""

Logits = Callable[[Tensor], Tensor]
"""Maps images (n, channels, h, w) to the network's output."""

Offers = Mapping[str, tuple[str, ...]]
"""Precisions by accelerator."""

FP32 = "fp32"
"""The precision of a network as it was trained, which every bundle has."""

INT8 = "int8"
"""The precision that is made above the runtimes, by a quantiser: `ofa.compression.quantisation.registry`."""

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


class NetworkSource(Protocol):
    """A network to be delivered, on the CPU and in eval mode, in the forms that files are made from."""

    @property
    def network(self) -> nn.Module:
        """The module; it must not be changed."""
        ...

    @property
    def program(self) -> ExportedProgram:
        """The network as a graph with any number of images."""
        ...

    @property
    def onnx(self) -> bytes:
        """The network as an ONNX model with any number of images."""
        ...

    def images(self, count: int) -> Tensor:
        """Return example images (count, channels, h, w), the same in every call."""
        ...


@dataclass(frozen=True)
class FileFormat:
    """The files that hold a network for an engine in a bundle.

    Attributes:
        name: what `formats` of the export names.
        file_names: names in the bundle, which no other format has; the first is the file that a user opens.
        write: returns the content of these files, in fp32.
        example: takes the paths of the written files, in the order of `file_names`, and their precision;
            returns the lines of Python, for the bundle's README, that make `logits` of the array `images`.
        packages: what must be installed to write them, beside the engine's own packages.
        batch_size: the only number of images per run; None where any number will do.
    """

    name: str
    file_names: tuple[str, ...]
    write: Callable[[NetworkSource], Files]
    example: Callable[[Sequence[str], str], str]
    packages: tuple[str, ...] = ()
    batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One inference engine; `ofa.runtimes.registry` lists them.

    Attributes:
        name: what `engine` of a device names.
        title: its name for people.
        packages: packages (with modules of the same name) that must be installed to convert and to run,
            beside those that this project always needs.
        extra: the extra of this project that installs them; empty where there are none.
        offers: returns the precisions by accelerator that it runs here and now; called when the packages
            are there. Int8 counts where it runs quantised files, whoever makes them.
        convert: takes a network, an example input and a precision other than int8; returns files of fixed
            input shape. The network is left as it is: it is copied, always in eval mode.
        load: takes the folder of the files, the threads that a run may use, the precision and the
            accelerator.
        facts: returns version and whatever else makes latencies comparable.
        one_image: whether it runs only one image at a time.
        format: what a bundle holds for it; None if nothing.
        kit_precisions: what a kit can measure with it, from an ONNX model, or from the engine's own files in
            int8; empty if nothing. The kit's program loads it by a function in its `kit_engines.py`.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    extra: str
    offers: Callable[[], Offers]
    convert: Callable[[nn.Module, Tensor, str], Files]
    load: Callable[[Path, int, str, str], Session]
    facts: Callable[[], dict[str, str]]
    one_image: bool = False
    format: FileFormat | None = None
    kit_precisions: tuple[str, ...] = ()


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Return those of the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def check_packages(packages: tuple[str, ...], what: str, extra: str, otherwise: str = "") -> None:
    """Check that optional packages are installed.

    Raises:
        UserError: naming those that are missing, the `extra` that installs them, and what else to do.
    """
    if missing_names := missing_packages(packages):
        *first_names, last_name = missing_names
        names = f"{', '.join(first_names)} and {last_name}" if first_names else last_name
        raise UserError(f"{what} needs {names}; install with: pip install -e '.[{extra}]'{otherwise}")


def offered_text(offers: Offers) -> str:
    """Return for instance "fp32, bf16 on cpu"."""
    return "; ".join(
        f"{', '.join(precisions)} on {accelerator}" for accelerator, precisions in offers.items()
    )


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
