"""Quantisers by export format; a new one is one file beside this one and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ofa.quantisation.calibration import Images
from ofa.quantisation.network import Quantise
from ofa.quantisation.onnx import OnnxQuantiser
from ofa.quantisation.openvino import quantise_openvino
from ofa.runtimes.base import Files
from ofa.runtimes.openvino import MODEL_FILE, WEIGHTS_FILE, core, save


@dataclass(frozen=True)
class Quantiser:
    """What makes a format's int8 files.

    Attributes:
        packages: what must be installed.
        extra: the extra of this project that installs it.
        prepare: takes the format's files in fp32 and calibration images.
    """

    packages: tuple[str, ...]
    extra: str
    prepare: Callable[[Files, Sequence[Images]], Quantise]


def _onnx(files: Files, calibration: Sequence[Images]) -> Quantise:
    ((name, model),) = files.items()
    quantiser = OnnxQuantiser(model, calibration)
    return lambda keep: {name: quantiser.quantise(keep)}


def _openvino(files: Files, calibration: Sequence[Images]) -> Quantise:
    model = core().read_model(files[MODEL_FILE], files[WEIGHTS_FILE])
    return lambda keep: save(quantise_openvino(model, calibration, keep))


QUANTISERS: dict[str, Quantiser] = {
    "onnx": Quantiser(("onnx", "onnxruntime"), "onnx", _onnx),
    "openvino": Quantiser(("openvino", "nncf"), "openvino", _openvino),
}
