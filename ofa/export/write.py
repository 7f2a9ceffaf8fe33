"""Export: a network as a folder of files that run elsewhere, all checked before the folder appears."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ofa.architecture.lowering import lower
from ofa.common.disk import check_free_space
from ofa.common.errors import UserError, unknown_name
from ofa.common.files import new_folder, write_json
from ofa.common.metric import metric_named
from ofa.common.progress import ProgressCallback, silent
from ofa.common.tensors import state_bytes
from ofa.data.settings import OUTPUTS_BY_NAME
from ofa.evaluation.outputs import parts_of
from ofa.export.card import ModelCard
from ofa.export.description import DESCRIPTION_FILE, describe
from ofa.export.formats import FORMATS, PT2, Format, Source, layers_of
from ofa.export.metadata import card_metadata
from ofa.export.precision import TargetPrecision, check_precision, export_lower, format_key, load_lower
from ofa.export.readme import README_FILE, bundle_readme
from ofa.export.record import ExportedFile, exported_file
from ofa.export.trust import record_export
from ofa.export.weights import load_into, load_subnet, weights_content
from ofa.runtimes.base import FP32, Files, Logits, check_packages, quiet, write_files
from ofa.space.staged import StagedSpace

CHECKED_BATCH_SIZES = (1, 3)
FORMATS_OF_SEVERAL_OUTPUTS = ("onnx", PT2)


@dataclass(frozen=True)
class ExportReport:
    """Path of a written bundle, the records of its files by format, and what a user's model became."""

    path: Path
    files: Mapping[str, ExportedFile]
    model_text: str = ""

    def lines(self) -> list[str]:
        """Return one line of text per format, and one for a user's model."""
        own = [f"the bundle is {self.model_text}"] if self.model_text else []
        return [*own, *(self._line(name, file) for name, file in self.files.items())]

    def _line(self, name: str, file: ExportedFile) -> str:
        names = ", ".join(str(self.path / part.file) for part in file.every_part)
        batch = "" if file.batch_size is None else f", {file.batch_size} image a run"
        size = f"{file.total_bytes / 1e6:.2f} MB"
        if file.validation_metric is None or file.fp32_validation_metric is None:
            return f"{names}: {size}, logits within {file.max_difference:.1e} of PyTorch's{batch}"
        fp32_file = self.files[name.removesuffix(f"_{file.precision}")]
        share = 100 * file.total_bytes / fp32_file.total_bytes
        metric = metric_named(file.validation_metric.name)
        value, fp32_value = file.validation_metric.value, file.fp32_validation_metric.value
        unit = " points" if metric.is_fraction else ""
        kept_text = f", {file.kept_text} in fp32" if file.kept_text else ""
        return (
            f"{names}: {size}, {share:.0f} % of fp32; {file.precision} {metric.title} on validation "
            f"images {metric.show(value)}, fp32 {metric.show(fp32_value)} "
            f"(loss {metric.gain(fp32_value, value):.2f}{unit}{kept_text}){batch}"
        )


def export_bundle(
    network: nn.Module,
    card: ModelCard,
    path: str | Path,
    formats: Sequence[str] = ("onnx", "pt2"),
    *,
    target: TargetPrecision | None = None,
    tolerance: float = 1e-4,
    progress: ProgressCallback = silent,
) -> ExportReport:
    """Write `network` as the folder `path`: description, weights, and the model in each format.

    Every format is loaded from its files, run on 1 and on 3 images (one by one if it takes single images
    only) and compared with the network's own logits. The folder appears under its name only when it is
    complete and checked; it then replaces an earlier bundle of that name.

    Args:
        network: any module from images (n, *card.input_shape) to logits (n, ...); not changed. If the
            card names a sub-network, its static network, recalibrated.
        card: description of the network.
        path: folder of the bundle.
        formats: names in `FORMATS` to write beside the weights.
        target: a further precision of each format beside fp32, measured on validation images; see
            `ofa.export.precision`.
        tolerance: largest allowed |difference| of logits, relative to the largest |logit|.
        progress: called after every format.

    Raises:
        UserError: if a format is unknown or its packages are missing, `network` does not fit the card or
            cannot be exported, a format does not offer the target precision, `path` is not a bundle or cannot
            be written, or the logits of a format differ.
    """
    path = Path(path)
    chosen_formats = _choose(formats)
    _check_subnet(network, card)
    if target is not None:
        check_precision(target.precision, target.mixed_precision, formats, layers_of(network))
    _check_replaceable(path)
    ranges = () if card.subnet is None else card.subnet.input_ranges
    source = Source(network, card.input_shape, card_metadata(card), ranges)
    num_outputs = _checked_outputs(source, card, formats, target is not None and target.precision != FP32)
    check_free_space(path.parent, _max_bytes(network, len(chosen_formats), target), "the bundle")
    total = 1 + len(chosen_formats)
    with new_folder(path, "bundle") as folder, quiet():
        progress(0, total, "weights")
        files = {"weights": _add_weights(folder, source, card, tolerance)}
        for index, (name, kind) in enumerate(chosen_formats.items(), 1):
            progress(index, total, name)
            content = kind.serialise(source)
            _write(folder, content)
            difference = _check(name, kind.load(folder), source, tolerance)
            files[name] = exported_file(content, difference, kind.batch_size)
            if target is not None and target.precision != FP32:
                key = format_key(name, target.precision)
                files[key] = _add_lower(folder, name, content, source, target, progress)
        _write(folder, {README_FILE: bundle_readme(card, files, num_outputs).encode()})
        write_json(folder / DESCRIPTION_FILE, describe(card, files))
        _trust_own(files)
    progress(total, total, "")
    return ExportReport(path, files, "" if card.subnet is None else card.subnet.model_text)


def _max_bytes(network: nn.Module, num_formats: int, target: TargetPrecision | None) -> int:
    """Return about the size of a bundle in bytes, at most."""
    num_precisions = 1 if target is None or target.precision == FP32 else 2
    return (1 + num_precisions * num_formats) * state_bytes(network)


def _trust_own(files: Mapping[str, ExportedFile]) -> None:
    """Remember those of the files that can run code as exported here."""
    for name, file in files.items():
        if name in FORMATS and FORMATS[name].runs_code:
            record_export(file.sha256)


def _check_subnet(network: nn.Module, card: ModelCard) -> None:
    """Check that a network has the layers of the sub-network that its card names, if any.

    That of a user's model, or with changed layers, is compared when its weights are written.
    """
    if card.subnet is None or card.subnet.compression or not isinstance(card.subnet.space, StagedSpace):
        return
    config = card.subnet.config
    if layers_of(network) != lower(card.subnet.space.unrestricted, config):
        raise UserError(f"The network does not have the layers of the sub-network {config}.")


@torch.no_grad()
def _checked_outputs(source: Source, card: ModelCard, formats: Sequence[str], has_lower: bool) -> int:
    """Return the number of outputs, checked to be for the card's images and such as all files can have."""
    try:
        output = source.network(source.images(2))
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            f"The network cannot take images of shape {card.input_shape}, the card's input_shape: {error}"
        ) from error
    parts = parts_of(output)
    takes_several = ":" in card.task  # A task of the user's own.
    if not parts or (len(parts) > 1 and not takes_several) or any(p.dim() < 2 or len(p) != 2 for p in parts):
        shape = tuple(parts[0].shape) if len(parts) == 1 else type(output).__name__
        raise UserError(f"The network returns {shape} for 2 images; expected a tensor (2, ...).")
    unfit_formats = [name for name in formats if name not in FORMATS_OF_SEVERAL_OUTPUTS]
    if len(parts) > 1 and (unfit_formats or has_lower):
        what = ", ".join(unfit_formats) or "a lower precision"
        raise UserError(
            f"The network returns {len(parts)} tensors, and {what} takes a single one. Formats of several "
            f"outputs are {' and '.join(FORMATS_OF_SEVERAL_OUTPUTS)}, in fp32."
        )
    if card.task in OUTPUTS_BY_NAME and parts[0].shape[1:] != (len(card.class_names),):
        raise UserError(
            f"The network returns {tuple(parts[0].shape)} for 2 images; the card has {len(card.class_names)} "
            "class names, so expected one logit for each."
        )
    return len(parts)


def _add_weights(folder: Path, source: Source, card: ModelCard, tolerance: float) -> ExportedFile:
    """Write the weights, check that they determine the network, and return their record."""
    content = weights_content(source.network)
    _write(folder, content)
    record = exported_file(content, 0.0)
    network: nn.Module
    if card.subnet is not None:
        network = load_subnet(folder, record, card.subnet)
    else:
        network = copy.deepcopy(source.network)
        for tensor in network.state_dict().values():
            tensor.zero_()
        load_into(folder, record, network)
    return exported_file(content, _check("weights", network, source, tolerance))


def _add_lower(
    folder: Path,
    name: str,
    content: Files,
    source: Source,
    target: TargetPrecision,
    progress: ProgressCallback,
) -> ExportedFile:
    """Write a format's files of lower precision and return their record."""
    result = export_lower(name, content, source, target, progress)
    _write(folder, result.files)
    first_path = folder / next(iter(result.files))
    logits = load_lower(name, first_path.parent, target.precision)
    difference = _check(format_key(name, target.precision), logits, source, math.inf)
    is_chain = source.units.title == "layer"
    return dataclasses.replace(
        exported_file(result.files, difference, FORMATS[name].batch_size),
        precision=target.precision,
        kept_layers=result.kept_units if is_chain else (),
        kept_operators=() if is_chain else result.kept_units,
        validation_metric=target.samples.measured(result.value),
        fp32_validation_metric=target.samples.measured(result.reference_value),
    )


def _choose(formats: Sequence[str]) -> dict[str, Format]:
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("export format", name, FORMATS)
        kind = FORMATS[name]
        otherwise = f", or leave {name} out of the formats"
        check_packages(kind.packages, f"Export to {name}", kind.extra, otherwise)
        if kind.runtime is not None:
            kind.runtime.offers()  # fails here if an installed package does not load
    return {name: FORMATS[name] for name in formats}


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir() or (any(path.iterdir()) and not (path / DESCRIPTION_FILE).is_file()):
        raise UserError(f"{path} exists and is not a bundle; choose another path or remove it.")


@torch.no_grad()
def _check(name: str, logits: Logits, source: Source, tolerance: float) -> float:
    """Return the largest |difference| of logits from the network's own logits."""
    max_difference = 0.0
    for count in CHECKED_BATCH_SIZES:
        images = source.images(count)
        expected = source.network(images)
        outputs = logits(images)
        shapes, expected_shapes = ([tuple(p.shape) for p in parts_of(o)] for o in (outputs, expected))
        if shapes != expected_shapes:
            raise UserError(
                f"The exported {name} file gives {_text(shapes)} logits for {count} images; expected "
                f"{_text(expected_shapes)}. No bundle was written."
            )
        for output, expected_output in zip(parts_of(outputs), parts_of(expected), strict=True):
            difference = float((output - expected_output).abs().max())
            limit = tolerance * float(expected_output.abs().max())
            if not difference <= limit:
                raise UserError(
                    f"The exported {name} file's logits differ from the network's by {difference:.3g} at "
                    f"batch size {count}; at most {limit:.3g} is allowed. No bundle was written."
                )
            max_difference = max(max_difference, difference)
    return max_difference


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))


def _write(folder: Path, files: Files) -> None:
    write_files(folder, files)
    for name in files:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
