"""Static quantisation of OpenVINO models by NNCF: symmetric weights, asymmetric activations."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa.compression.quantisation.base import Quantise, Quantiser
from ofa.compression.quantisation.calibration import Images, check_calibration
from ofa.compression.quantisation.graph import GraphNode, kept_names
from ofa.compression.quantisation.trained_inputs import Limits, TrainedInputs
from ofa.runtimes.base import Files, check_packages, quiet
from ofa.runtimes.openvino import MODEL_FILE, WEIGHTS_FILE, core, save

if TYPE_CHECKING:
    import openvino

_PACKAGES = ("openvino", "nncf")
_OPERATORS = ("Convolution", "GroupConvolution", "MatMul")
_MOVING = ("Concat", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operations whose outputs are values of their inputs; the quantiser rounds before them."""


def quantise_openvino(
    model: openvino.Model,
    calibration: Sequence[Images],
    kept_operators: Collection[int] = (),
    limits: Mapping[str, Limits] | None = None,
) -> openvino.Model:
    """Return `model` quantised to 8 bits, with biases corrected for the shift by rounding.

    The weights of the first convolution get 7 bits, so that sums do not overflow on x86 processors without
    VNNI instructions. Weights and biases that were trained with ranges stay as they are; measure accuracy on
    the target processor.

    Args:
        model: model with one input, in float32; not changed.
        calibration: calibration inputs, each with its batch dimension, preferably one image each:
            ranges are averaged over the inputs.
        kept_operators: positions of the convolutions and linear layers that stay in floating point, in the
            order they run; see `ofa.compression.quantisation.graph.operators_of`.
        limits: trained ranges of what operators read, by the operators' names in a copy of the model; see
            `trained_limits`. They are not taken from the calibration then.

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
        quantised = nncf.quantize(
            named_model,
            nncf.Dataset(list(calibration)),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
            advanced_parameters=None if limits is None else _as_trained(nncf),
        )
    if limits is not None:
        _set_ranges(quantised, limits)
    return quantised


def trained_limits(model: openvino.Model, trained: TrainedInputs) -> dict[str, Limits]:
    """Return the trained ranges of what the operators of a model read, by their names in a copy of it."""
    return trained.limits(_operator_inputs(_with_own_names(model), trained.images))


def _import_nncf() -> Any:
    """Import the quantiser with its usage reports disabled, which it sends by default."""
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    return nncf


def _as_trained(nncf: Any) -> Any:
    """Return parameters that leave weights and biases as they were trained for int8."""
    return nncf.AdvancedQuantizationParameters(
        disable_bias_correction=True, overflow_fix=nncf.OverflowFix.DISABLE
    )


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


def _operator_inputs(model: openvino.Model, images: Images) -> dict[str, Images]:
    """Return what each operator reads in a run, by its name; the model gets further outputs."""
    names = {facts.name for facts in graph_nodes(model) if facts.operator}
    operators = [node for node in model.get_ordered_ops() if node.get_friendly_name() in names]
    sources = [node.input_value(0) for node in operators]
    # Several operators may read one tensor, which is one output.
    tensors = {(port.get_node().get_friendly_name(), port.get_index()): port for port in sources}
    first = len(model.outputs)
    model.add_outputs(list(tensors.values()))
    results = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
    values = {source: results[position].copy() for position, source in enumerate(tensors, first)}
    return {
        node.get_friendly_name(): values[port.get_node().get_friendly_name(), port.get_index()]
        for node, port in zip(operators, sources, strict=True)
    }


def _set_ranges(quantised: openvino.Model, limits: Mapping[str, Limits]) -> None:
    """Set the ranges of what operators read, by the operators' names, in place."""
    widest: dict[str, tuple[openvino.Node, Limits]] = {}
    for node in quantised.get_ordered_ops():
        if (own := limits.get(node.get_friendly_name())) is not None:
            for rounding in _roundings_before(node.input(0)):
                name = rounding.get_friendly_name()
                _, other = widest.get(name, (rounding, own))
                widest[name] = rounding, (min(own[0], other[0]), max(own[1], other[1]))
    for rounding, (minimum, maximum) in widest.values():
        step = (maximum - minimum) / 255
        lowest = 0.0 - step * round(-minimum / step)
        for position, value in enumerate((lowest, lowest + 255 * step) * 2, 1):
            _set_constant(rounding.input(position), value)


def _roundings_before(port: openvino.Input) -> Iterator[openvino.Node]:
    """Yield the operations that round what a port reads."""
    node = port.get_source_output().get_node()
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        yield node
    elif kind in _MOVING:
        for source in node.inputs() if kind == "Concat" else node.inputs()[:1]:
            yield from _roundings_before(source)


def _set_constant(port: openvino.Input, value: float) -> None:
    from openvino import opset13

    shape = port.get_source_output().get_shape()
    constant = opset13.constant(np.full(shape, value, np.float32))
    port.replace_source_output(constant.output(0))


def _quantise_files(
    files: Files, calibration: Sequence[Images], trained: TrainedInputs | None = None
) -> Quantise:
    model = core().read_model(files[MODEL_FILE], files[WEIGHTS_FILE])
    limits = None if trained is None else trained_limits(model, trained)
    return lambda kept_operators: save(quantise_openvino(model, calibration, kept_operators, limits))


QUANTISER = Quantiser("openvino", _PACKAGES, _quantise_files)
