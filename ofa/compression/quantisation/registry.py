"""The list of quantisers; a new one is a file beside this one and an entry here."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ofa.compression.quantisation import onnx, openvino
from ofa.compression.quantisation.base import Quantiser
from ofa.compression.quantisation.random_calibration import random_inputs
from ofa.runtimes.base import FP32, INT8, Files, Offers, Runtime

QUANTISERS: dict[str, Quantiser] = {
    quantiser.engine: quantiser for quantiser in (onnx.QUANTISER, openvino.QUANTISER)
}
"""Quantisers by name of the engine."""


def offers_of(runtime: Runtime) -> Offers:
    """Return the precisions by accelerator that can be made for an engine and run by it on this machine."""
    if runtime.name in QUANTISERS:
        return runtime.offers()
    return {
        accelerator: tuple(precision for precision in precisions if precision != INT8)
        for accelerator, precisions in runtime.offers().items()
    }


def converted(runtime: Runtime, network: nn.Module, example: Tensor, precision: str) -> Files:
    """Return the engine's files of a network, in any precision of `offers_of`; see `Runtime.convert`.

    Raises:
        UserError: if a package is missing, or the engine cannot convert the network.
    """
    if precision == INT8:
        return quantised(runtime, network, example)
    return runtime.convert(network, example, precision)


def quantised(runtime: Runtime, network: nn.Module, example: Tensor) -> Files:
    """Return the engine's files in int8 for inputs of the example's shape, calibrated on random inputs.

    For timing only. For accuracy see `ofa.compression.quantisation.search_precision.quantise_network`.
    """
    files = runtime.convert(network, example, FP32)
    return QUANTISERS[runtime.name].prepare(files, random_inputs(example))(())


def packages_of(runtimes: Iterable[Runtime]) -> dict[str, tuple[str, ...]]:
    """Return, by extra of this project, the packages that the engines need in all steps.

    Engines without packages of their own are omitted.
    """
    packages: dict[str, list[str]] = {}
    for runtime in runtimes:
        of_format = runtime.format.packages if runtime.format else ()
        quantiser = QUANTISERS.get(runtime.name)
        of_quantiser = quantiser.packages if quantiser else ()
        if needed := (*runtime.packages, *of_format, *of_quantiser):
            packages.setdefault(runtime.extra, []).extend(needed)
    return {extra: tuple(dict.fromkeys(names)) for extra, names in packages.items()}
