"""Export: a sub-network as a folder of files that run elsewhere, each checked before it is kept."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ofa.architecture.lowering import lower
from ofa.common.errors import UserError, unknown_name
from ofa.common.files import new_folder, write_json
from ofa.common.progress import ProgressCallback, silent
from ofa.export.bundle import DESCRIPTION_FILE, BundleInfo, describe
from ofa.export.formats import FORMATS, WEIGHTS, Format, Source
from ofa.export.precision import WantedPrecision, check_precision, export_lower, format_key, load_lower
from ofa.export.readme import README_FILE, bundle_readme
from ofa.export.record import ExportedFile, exported_file
from ofa.modules.static import StaticNetwork
from ofa.runtimes.base import FP32, Files, Logits, check_packages, quiet, write_files

CHECKED_BATCH_SIZES = (1, 3)


@dataclass(frozen=True)
class ExportReport:
    """Where a bundle was written, and its files by format with their largest |difference| of logits."""

    path: Path
    files: Mapping[str, ExportedFile]

    def lines(self) -> list[str]:
        """Return a line on each format."""
        return [self._line(name, file) for name, file in self.files.items()]

    def _line(self, name: str, file: ExportedFile) -> str:
        names = ", ".join(str(self.path / part.file) for part in file.every_part)
        batch = "" if file.batch_size is None else f", {file.batch_size} image a run"
        size = f"{file.total_bytes / 1e6:.2f} MB"
        if file.validation_top1 is None or file.fp32_validation_top1 is None:
            return f"{names}: {size}, logits within {file.max_difference:.1e} of PyTorch's{batch}"
        plain = self.files[name.removesuffix(f"_{file.precision}")]
        share = 100 * file.total_bytes / plain.total_bytes
        found, expected = 100 * file.validation_top1, 100 * file.fp32_validation_top1
        kept = f", layers {', '.join(map(str, file.kept_layers))} in fp32" if file.kept_layers else ""
        return (
            f"{names}: {size}, {share:.0f} % of fp32; {file.precision} top-1 on validation images "
            f"{found:.2f} %, fp32 {expected:.2f} % (loss {expected - found:.2f} points{kept}){batch}"
        )


def export_bundle(
    network: StaticNetwork,
    info: BundleInfo,
    path: Path,
    formats: Sequence[str] = ("onnx", "pt2"),
    *,
    wanted: WantedPrecision | None = None,
    tolerance: float = 1e-4,
    progress: ProgressCallback = silent,
) -> ExportReport:
    """Write `network` as the folder `path`: description, weights, and the model in each format.

    Every format is loaded from its files, run on 1 and on 3 images (one by one where it takes single images
    only) and compared with the network's own logits. The folder appears under its name only when all of it
    is written and checked; a bundle that was there before is replaced then and not earlier.

    Args:
        network: the sub-network of `info.config`, recalibrated; it is not changed.
        info: what the bundle says about it.
        path: the folder to write.
        formats: which of `FORMATS` to write beside the weights.
        wanted: a further precision of each format beside fp32, measured on validation images; see
            `ofa.export.precision`.
        tolerance: largest allowed |difference| of logits, relative to the largest |logit|.
        progress: called after every format.

    Raises:
        UserError: if a format is unknown or its packages are missing, `network` is not that of the info,
            a format does not offer the wanted precision, `path` is something else than a bundle or cannot be
            written, or a format computes other logits.
    """
    chosen = _choose(formats)
    if network.specs != lower(info.space.unrestricted, info.config):
        raise UserError(f"The network does not have the layers of the sub-network {info.config}.")
    if wanted is not None:
        check_precision(wanted.precision, wanted.keep, formats, network.specs)
    _check_replaceable(path)
    source = Source(network, info)
    files: dict[str, ExportedFile] = {}
    with new_folder(path, "bundle") as folder, quiet():
        for done, (name, kind) in enumerate(chosen.items()):
            progress(done, len(chosen), name)
            content = kind.serialise(source)
            _write(folder, content)
            difference = _check(name, kind.load(folder, info), source, tolerance)
            files[name] = exported_file(content, difference, kind.batch_size)
            if wanted is not None and wanted.precision != FP32 and name in formats:
                key = format_key(name, wanted.precision)
                files[key] = _add_lower(folder, name, content, source, wanted, progress)
        _write(folder, {README_FILE: bundle_readme(info, files).encode()})
        write_json(folder / DESCRIPTION_FILE, describe(info, files))
    progress(len(chosen), len(chosen), "")
    return ExportReport(path, files)


def _add_lower(
    folder: Path,
    name: str,
    content: Files,
    source: Source,
    wanted: WantedPrecision,
    progress: ProgressCallback,
) -> ExportedFile:
    """Write a format's files of lower precision and return their record."""
    made = export_lower(name, content, source, wanted, progress)
    _write(folder, made.files)
    first = folder / next(iter(made.files))
    logits = load_lower(name, first.parent, wanted.precision)
    difference = _check(format_key(name, wanted.precision), logits, source, math.inf)
    return dataclasses.replace(
        exported_file(made.files, difference, FORMATS[name].batch_size),
        precision=wanted.precision,
        kept_layers=made.kept_layers,
        validation_top1=made.top1,
        fp32_validation_top1=made.reference_top1,
    )


def _choose(formats: Sequence[str]) -> dict[str, Format]:
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("export format", name, FORMATS)
        kind = FORMATS[name]
        otherwise = f", or leave {name} out of the formats"
        check_packages(kind.packages, f"Export to {name}", kind.extra, otherwise)
        if kind.runtime is not None:
            kind.runtime.offers()  # tells now if a package is there and does not load
    return {"weights": WEIGHTS, **{name: FORMATS[name] for name in formats}}


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


def _write(folder: Path, files: Files) -> None:
    write_files(folder, files)
    for name in files:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
