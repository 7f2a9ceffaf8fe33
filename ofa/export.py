"""Export: a sub-network as a folder of files that run elsewhere, each checked before it is kept."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ofa.bundle import (
    DESCRIPTION_FILE,
    Bundle,
    BundleInfo,
    ExportedFile,
    describe,
    load_bundle,
    sha256,
)
from ofa.errors import UserError, unknown_name
from ofa.files import write_json
from ofa.formats import FORMATS, WEIGHTS, Format, Logits, Source
from ofa.lowering import lower
from ofa.preprocessing import Preprocessing
from ofa.progress import ProgressCallback, silent
from ofa.static import StaticNetwork

__all__ = [
    "FORMATS",
    "Bundle",
    "BundleInfo",
    "ExportReport",
    "ExportedFile",
    "Preprocessing",
    "export_bundle",
    "load_bundle",
]

CHECKED_BATCH_SIZES = (1, 3)


@dataclass(frozen=True)
class ExportReport:
    """Where a bundle was written, and its files by format with their largest |difference| of logits."""

    path: Path
    files: Mapping[str, ExportedFile]


def export_bundle(
    network: StaticNetwork,
    info: BundleInfo,
    path: Path,
    formats: Sequence[str] = ("onnx", "pt2"),
    *,
    tolerance: float = 1e-4,
    progress: ProgressCallback = silent,
) -> ExportReport:
    """Write `network` as the folder `path`: description, weights, and the model in each format.

    Every file is read again, run at batch sizes 1 and 3 and compared with the network's own logits. The
    folder appears under its name only when all of it is written and checked; a bundle that was there
    before is replaced then and not earlier.

    Args:
        network: the sub-network of `info.config`, recalibrated; it is not changed.
        info: what the bundle says about it.
        path: the folder to write.
        formats: which of "onnx" and "pt2" to write beside the weights.
        tolerance: largest allowed |difference| of logits, relative to the largest |logit|.
        progress: called after every file.

    Raises:
        UserError: if a format is unknown or its packages are missing, `network` is not that of the info,
            `path` is something else than a bundle or cannot be written, or a file computes other logits.
    """
    chosen = _choose(formats)
    if network.specs != lower(info.space.whole, info.config):
        raise UserError(f"The network does not have the layers of the sub-network {info.config}.")
    _check_replaceable(path)
    source = Source(network, info)
    files: dict[str, ExportedFile] = {}
    with _new_folder(path) as folder, _quiet():
        for done, (name, kind) in enumerate(chosen.items()):
            progress(done, len(chosen), name)
            content = kind.serialise(source)
            _write(folder / kind.file, content)
            difference = _check(name, kind.load(folder / kind.file, info), source, tolerance)
            files[name] = ExportedFile(kind.file, sha256(content), len(content), difference)
        write_json(folder / DESCRIPTION_FILE, describe(info, files))
    progress(len(chosen), len(chosen), "")
    return ExportReport(path, files)


def _choose(formats: Sequence[str]) -> dict[str, Format]:
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("export format", name, FORMATS)
        missing = [package for package in FORMATS[name].packages if not _installed(package)]
        if missing:
            raise UserError(
                f"Export to {name} needs {', '.join(missing)}, not installed here. Install the extra with "
                f"pip install -e '.[onnx]', or leave {name} out of the formats."
            )
    return {"weights": WEIGHTS, **{name: FORMATS[name] for name in formats}}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir() or (any(path.iterdir()) and not (path / DESCRIPTION_FILE).is_file()):
        raise UserError(f"{path} exists and is not a bundle; choose another path or remove it.")


@torch.no_grad()
def _check(name: str, logits: Logits, source: Source, tolerance: float) -> float:
    """Return the largest |difference| of logits from those of the network itself."""
    worst = 0.0
    for count in CHECKED_BATCH_SIZES:
        images = source.images(count)
        expected = source.network(images)
        found = logits(images)
        if found.shape != expected.shape:
            raise UserError(
                f"The exported {name} file gives {tuple(found.shape)} logits for {count} images; expected "
                f"{tuple(expected.shape)}. No bundle was written."
            )
        difference = float((found - expected).abs().max())
        limit = tolerance * float(expected.abs().max())
        if not difference <= limit:
            raise UserError(
                f"The exported {name} file's logits differ from the network's by {difference:.3g} at batch "
                f"size {count}; at most {limit:.3g} is allowed. No bundle was written."
            )
        worst = max(worst, difference)
    return worst


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` that becomes `path` if all goes well, and else disappears."""
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        _replace(path, temporary)
    except OSError as error:
        raise UserError(
            f"Could not write the bundle {path}: {error}. Check the permissions and free space; "
            "what was there before is untouched."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, new: Path) -> None:
    """Move the folder `new` to `path`; what is there is deleted when `new` has taken its place."""
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notes that exporters write about their own inside."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
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
