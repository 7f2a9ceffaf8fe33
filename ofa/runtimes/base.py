"""`Runtime`: the record of an inference engine, from which formats, kits, READMEs and timing follow."""

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

from ofa.common.display import short_text
from ofa.common.errors import UserError

Files = dict[str, bytes]
"""Content by file name; the first file is the one that a user opens."""

Logits = Callable[[Tensor], Tensor]
"""Maps images (n, channels, h, w) to the network's output."""

Offers = Mapping[str, tuple[str, ...]]
"""Precisions by accelerator."""

FP32 = "fp32"
"""The precision of the exported weights; every bundle has it."""

INT8 = "int8"
"""Precision made above the runtimes, by a quantiser: `ofa.compression.quantisation.registry`."""

_LOGGERS = ("torch", "onnxscript", "onnx_ir", "executorch", "nncf")


class Session(Protocol):
    """A loaded network; a call maps images to an output in memory of its own."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return the float32 output for float32 images."""
        ...

    def bind(self, images: Tensor) -> Callable[[], object]:
        """Return a function that runs the network on these images with the least overhead, for timing.

        The images are passed without copies if the engine supports it, and the output stays in the engine's
        memory. The result is valid as long as the session.
        """
        ...


class NetworkSource(Protocol):
    """A network to be exported, on the CPU and in eval mode, in the forms that file formats start from."""

    @property
    def network(self) -> nn.Module:
        """The module; it must not be changed."""
        ...

    @property
    def program(self) -> ExportedProgram:
        """The network as a graph for any number of images."""
        ...

    @property
    def onnx(self) -> bytes:
        """The network as an ONNX model for any number of images."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts on the network by key, for files that have a place for them."""
        ...

    def images(self, count: int) -> Tensor:
        """Return example images (count, channels, h, w), equal in every call."""
        ...


@dataclass(frozen=True)
class FileFormat:
    """The files that hold a network for an engine in a bundle.

    Attributes:
        name: name in the setting `formats` of the export.
        file_names: file names in the bundle, unique to the format; the user opens the first.
        write: takes the source, returns the content of these files in fp32.
        example: takes the paths of the written files, in the order of `file_names`, and their precision;
            returns Python lines for the bundle's README that compute `logits` from the array `images`.
        packages: packages needed to write the files, beside the engine's own.
        batch_size: the only number of images per run; None for any number.
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
        name: name in the setting `engine` of a device.
        title: name in texts for users.
        packages: packages (with modules of the same name) needed to convert and to run, beside this project's
            own dependencies.
        extra: the extra of this project that installs `packages`; empty without any.
        offers: returns the precisions by accelerator that this machine supports; called only if the packages
            are installed. Includes int8 if the engine runs quantised files, whichever tool makes them.
        convert: takes a network, an example input and a precision other than int8; returns files of fixed
            input shape. The network is copied, not changed, and converted in eval mode.
        load: takes the folder of the files, the number of threads per run, the precision and the
            accelerator.
        facts: returns version and everything else that latencies depend on.
        one_image: whether the engine runs only one image at a time.
        format: the engine's file format in bundles; None without one.
        kit_precisions: precisions that a kit can measure, from an ONNX model, or from the engine's own files
            in int8; empty for none. The kit loads the engine by a function in its `kit_engines.py`.
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
    """Return the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def check_packages(packages: tuple[str, ...], what: str, extra: str, otherwise: str = "") -> None:
    """Check that optional packages are installed.

    Raises:
        UserError: naming the missing packages, the `extra` that installs them, and the alternative.
    """
    if missing_names := missing_packages(packages):
        *first_names, last_name = missing_names
        names = f"{', '.join(first_names)} and {last_name}" if first_names else last_name
        raise UserError(f"{what} needs {names}; install with: pip install -e '.[{extra}]'{otherwise}")


def offered_text(offers: Offers) -> str:
    """Return the offers as text, e.g. "fp32, bf16 on cpu"."""
    return "; ".join(
        f"{', '.join(precisions)} on {accelerator}" for accelerator, precisions in offers.items()
    )


def write_files(folder: Path, files: Files) -> None:
    """Write the files into a folder; names may contain subfolders."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def each_image(logits: Logits) -> Logits:
    """Return `logits` for any number of images, from a function that takes a single image."""

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
def refusal_named(title: str, path: Path) -> Iterator[None]:
    """Turn whatever an engine raises while it loads a file into the user's error.

    Args:
        title: name of the engine for users.
        path: the file.

    Raises:
        UserError: naming the engine, the file and the reason.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Engines have errors of their own.
        reason = short_text(" ".join(str(error).split()) or type(error).__name__, 300)
        raise UserError(
            f"{title} does not run {path}: {reason}. Use an intact copy, or export it again."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence log messages and warnings of exporters and engines."""
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
