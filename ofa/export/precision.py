"""Exports in a precision below fp32, beside those in fp32: made by the engine's own tools, then measured."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ofa.architecture.layer import LayerSpec
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.compression.quantisation.base import Quantiser
from ofa.compression.quantisation.registry import QUANTISERS, offers_of
from ofa.compression.quantisation.search_precision import (
    MixedPrecisionSettings,
    QuantisedNetwork,
    Samples,
    check_kept_layers,
    quantise_network,
)
from ofa.export.formats import FORMATS, Source
from ofa.runtimes.base import (
    FP32,
    INT8,
    Files,
    Logits,
    each_image,
    missing_packages,
    write_files,
)


@dataclass(frozen=True)
class TargetPrecision:
    """A precision to export in; fp32 adds no further files.

    Attributes:
        precision: precision, e.g. "int8" or "bf16".
        samples: images for calibration and evaluation.
        mixed_precision: choice of layers that stay in floating point when the others are quantised.
    """

    precision: str
    samples: Samples
    mixed_precision: MixedPrecisionSettings = field(default_factory=MixedPrecisionSettings)


def check_precision(
    precision: str,
    mixed_precision: MixedPrecisionSettings,
    formats: Sequence[str],
    specs: Sequence[LayerSpec] | None,
) -> None:
    """Check that every format offers the precision on this machine, and that the kept layers exist.

    Raises:
        UserError: naming every mismatch, with the precisions that each format offers.
    """
    problems, unfit_names = [], []
    for name in formats:
        precisions = offered_precisions(name)
        if precision not in precisions:
            problems.append(
                f"Format {name} offers {', '.join(precisions)} on this processor, not {precision}."
            )
            unfit_names.append(name)
        elif precision == INT8 and (missing_names := missing_packages(_quantiser(name).packages)):
            extra = FORMATS[name].extra
            problems.append(f"int8 of {name} needs {', '.join(missing_names)}: pip install -e '.[{extra}]'.")
    if unfit_names and (fitting_names := [name for name in formats if name not in unfit_names]):
        problems.append(f"formats=[{','.join(fitting_names)}] leaves {', '.join(unfit_names)} out.")
    if mixed_precision.keep_layers != "none" and precision != INT8:
        problems.append(f"keep_layers belongs to precision=int8; precision is {precision}.")
    try:
        check_kept_layers(specs, mixed_precision)
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


def offered_precisions(name: str) -> tuple[str, ...]:
    """Return the precisions that a format can be exported in and run with on this processor."""
    runtime = FORMATS[name].runtime
    if runtime is None:
        return (FP32,)
    return offers_of(runtime).get("cpu", ())


def _quantiser(name: str) -> Quantiser:
    """Return the quantiser of a format that offers int8."""
    runtime = FORMATS[name].runtime
    assert runtime is not None
    return QUANTISERS[runtime.name]


def format_key(name: str, precision: str) -> str:
    """Return the name of a format's files of one precision in `Bundle.files`."""
    return name if precision == FP32 else f"{name}_{precision}"


def export_lower(
    name: str, files: Files, source: Source, target: TargetPrecision, progress: ProgressCallback = silent
) -> QuantisedNetwork:
    """Return a format's files of lower precision by their names in the bundle, measured on validation images.

    Int8 has a separate file, in a folder named after it. In other precisions the engine runs the
    fp32 files.

    Args:
        name: name of the format.
        files: files of the format in fp32.
        source: the network.
        target: target precision; `check_precision` has passed.
        progress: called per evaluated network.

    Raises:
        UserError: if no set of floating-point layers keeps the loss small enough.
    """
    reference, samples = source.network, target.samples
    if target.precision != INT8:
        logits = _load(name, files, target.precision)
        return QuantisedNetwork(files, (), samples.metric, samples.score(logits), samples.score(reference))
    result = quantise_network(
        source.units,
        lambda calibration: _quantiser(name).prepare(files, calibration, source.trained_inputs),
        lambda quantised: _load(name, quantised, INT8),
        reference,
        samples,
        target.mixed_precision,
        lambda done, total, text: progress(done, total, f"{name} int8 {text}".strip()),
    )
    named_files = {f"{INT8}/{file}": content for file, content in result.files.items()}
    return dataclasses.replace(result, files=named_files)


def load_lower(name: str, folder: Path, precision: str) -> Logits:
    """Return the function from images to logits of a format's files in a folder, in lower precision."""
    kind = FORMATS[name]
    assert kind.runtime is not None
    session = kind.runtime.load(folder, torch.get_num_threads(), precision, "cpu")
    return session if kind.batch_size is None else each_image(session)


def _load(name: str, files: Files, precision: str) -> Logits:
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        return load_lower(name, Path(folder), precision)
