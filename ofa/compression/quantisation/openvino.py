"""Static quantisation of OpenVINO models by NNCF: symmetric weights, asymmetric activations."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ofa.compression.quantisation.base import Quantise, Quantiser
from ofa.compression.quantisation.calibration import Images, check_calibration
from ofa.compression.quantisation.graph import GraphNode, kept_names
from ofa.runtimes.base import Files, check_packages, quiet
from ofa.runtimes.openvino import MODEL_FILE, WEIGHTS_FILE, core, save

if TYPE_CHECKING:
    import openvino

_PACKAGES = ("openvino", "nncf")
_OPERATORS = ("Convolution", "GroupConvolution", "MatMul")


def quantise_openvino(
    model: openvino.Model, calibration: Sequence[Images], kept_operators: Collection[int] = ()
) -> openvino.Model:
    """Return `model` quantised to 8 bits, with biases corrected for the shift by rounding.

    Args:
        model: model with one input, in float32; not changed.
        calibration: calibration inputs, each with its batch dimension, preferably one image each:
            ranges are averaged over the inputs.
        kept_operators: positions of the convolutions and linear layers that stay in floating point, in the
            order they run; see `ofa.compression.quantisation.graph.operators_of`.

    Raises:
        UserError: if there are no calibration images, a package is missing, or the model lacks one of these
            operators.
    """
    check_packages(_PACKAGES, "Quantisation of OpenVINO models", "openvino")
    check_calibration(calibration)
    # The quantiser draws progress bars.
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        nncf = _import_nncf()
        named_model = _with_own_names(model)
        names = kept_names(graph_nodes(named_model), kept_operators)
        return nncf.quantize(
            named_model,
            nncf.Dataset(list(calibration)),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
        )


def _import_nncf() -> Any:
    """Import the quantiser with its usage reports disabled, which it sends by default."""
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    return nncf


def graph_nodes(model: openvino.Model) -> list[GraphNode]:
    """Return the operations of a model that depend on its input; their friendly names must be unique."""
    producers: dict[str, int] = {}
    nodes: list[GraphNode] = []
    for node in model.get_ordered_ops():
        inputs = [port.get_source_output().get_node().get_friendly_name() for port in node.inputs()]
        sources = tuple(producers[name] for name in inputs if name in producers)
        if not sources and node.get_type_name() != "Parameter":
            continue
        operator = node.get_type_name() in _OPERATORS and inputs[1] not in producers
        producers[node.get_friendly_name()] = len(nodes)
        nodes.append(GraphNode(node.get_friendly_name(), operator, sources))
    return nodes


def _with_own_names(model: openvino.Model) -> openvino.Model:
    """Return a copy with unique names for all operations but inputs and outputs."""
    copy = model.clone()
    for position, node in enumerate(copy.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{position}_{node.get_type_name()}")
    return copy


def _quantise_files(files: Files, calibration: Sequence[Images]) -> Quantise:
    model = core().read_model(files[MODEL_FILE], files[WEIGHTS_FILE])
    return lambda kept_operators: save(quantise_openvino(model, calibration, kept_operators))


QUANTISER = Quantiser("openvino", _PACKAGES, _quantise_files)
