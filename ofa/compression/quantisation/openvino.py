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
    model: openvino.Model, calibration: Sequence[Images], keep: Collection[int] = ()
) -> openvino.Model:
    """Return `model` quantised to 8 bits, with biases corrected for what rounding shifts.

    Args:
        model: with one input, in float32; it is not changed.
        calibration: values of the input, each with its batch dimension, preferably of one image each:
            ranges are averaged over the inputs.
        keep: positions of the convolutions and linear layers that stay in floating point, in the order they
            run; see `ofa.compression.quantisation.graph.operators_of`.

    Raises:
        UserError: if there are no calibration images, a package is missing, or the model has no such
            operator.
    """
    check_packages(_PACKAGES, "Quantisation of OpenVINO models", "openvino")
    check_calibration(calibration)
    # The quantiser draws progress bars.
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        nncf = _import_nncf()
        named_model = _with_own_names(model)
        names = kept_names(graph_nodes(named_model), keep)
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
    """Import the quantiser without the reports on its use that it would send to its makers unasked."""
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    return nncf


def graph_nodes(model: openvino.Model) -> list[GraphNode]:
    """Return the operations of a model that depend on its input; friendly names must be unique."""
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
    """Return a copy whose operations, but for inputs and outputs, have names of their own."""
    copy = model.clone()
    for position, node in enumerate(copy.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{position}_{node.get_type_name()}")
    return copy


def _quantise_files(files: Files, calibration: Sequence[Images]) -> Quantise:
    model = core().read_model(files[MODEL_FILE], files[WEIGHTS_FILE])
    return lambda keep: save(quantise_openvino(model, calibration, keep))


QUANTISER = Quantiser("openvino", _PACKAGES, _quantise_files)
