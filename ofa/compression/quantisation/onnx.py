"""Static quantisation of ONNX models by ONNX Runtime's own quantiser.

Activations become unsigned and weights signed 8-bit integers (U8S8), weights with one scale per output
channel, marked in the graph by pairs of QuantizeLinear and DequantizeLinear. On x86 processors without VNNI
instructions sums of such products can overflow 16 bits; measure accuracy on the target processor.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.compression.quantisation.base import Quantise, Quantiser
from ofa.compression.quantisation.calibration import Images, check_calibration
from ofa.compression.quantisation.graph import GraphNode, kept_names
from ofa.compression.quantisation.trained_inputs import Limits, TrainedInputs, Values
from ofa.runtimes.base import Files, check_packages
from ofa.runtimes.onnx_export import metadata_of, with_metadata

if TYPE_CHECKING:
    import onnx

_PACKAGES = ("onnx", "onnxruntime")
_OPERATORS = ("Conv", "Gemm", "MatMul")
_MOVING = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")
"""Operations whose outputs are values of their first input."""


class OnnxQuantiser:
    """Quantises one model repeatedly; preparation and calibration run once."""

    def __init__(
        self, model: bytes, calibration: Sequence[Images], trained: TrainedInputs | None = None
    ) -> None:
        """Fold batch norm into the convolutions and infer shapes.

        Args:
            model: an ONNX model with one input, in float32.
            calibration: calibration inputs, each with its batch dimension.
            trained: ranges of the inputs of layers, which are not taken from the calibration then.

        Raises:
            UserError: if there are no calibration images or a package is missing.
        """
        check_packages(_PACKAGES, "Quantisation of ONNX models", "onnx")
        check_calibration(calibration)
        self._calibration = calibration
        self._model = _prepare(model)
        self._limits = {} if trained is None else _trained_limits(self._model, trained)
        self._ranges: bytes | None = None

    def quantise(self, kept_operators: Collection[int] = ()) -> bytes:
        """Return the quantised model.

        Args:
            kept_operators: positions of the convolutions and linear layers that stay in floating point, in
                the order they run; see `ofa.compression.quantisation.graph.operators_of`.

        Raises:
            UserError: if the model lacks one of these operators.
        """
        import onnx

        if self._ranges is None and self._limits:
            self._quantised(())
            assert self._ranges is not None
            self._ranges = _with_trained(self._ranges, onnx.load_from_string(self._model), self._limits)
        return self._quantised(kept_operators)

    def _quantised(self, kept_operators: Collection[int]) -> bytes:
        """Quantise with the ranges that are known, or calibrate."""
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        excluded_names = kept_names(graph_nodes(onnx.load_from_string(self._model)), kept_operators)
        with tempfile.TemporaryDirectory() as folder:
            source, target, ranges = (Path(folder) / name for name in ("in.onnx", "out.onnx", "ranges.json"))
            source.write_bytes(self._model)
            if self._ranges is not None:
                ranges.write_bytes(self._ranges)
            quantize_static(
                source,
                target,
                _reader(onnx.load_from_string(self._model).graph.input[0].name, self._calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=excluded_names,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=ranges,
                # ONNX Runtime quantises biases when it loads the file; a float bias takes less space.
                extra_options={"QuantizeBias": False},
            )
            self._ranges = ranges.read_bytes()
            return _compact(target.read_bytes())


def _trained_limits(content: bytes, trained: TrainedInputs) -> dict[str, Limits]:
    """Return the trained ranges of what operators read, by the names of the tensors."""
    import onnx
    import onnxruntime

    model = onnx.load_from_string(content)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    operators = [node for node, facts in zip(nodes, graph_nodes(model), strict=True) if facts.operator]
    source = model.graph.input[0].name
    names = sorted({node.input[0] for node in operators} - {source})
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tensors: list[Values] = session.run(names, {source: trained.images})
    return trained.limits({source: trained.images, **dict(zip(names, tensors, strict=True))})


def _with_trained(content: bytes, model: onnx.ModelProto, limits: Mapping[str, Limits]) -> bytes:
    """Return ONNX Runtime's file of ranges with those of some tensors replaced.

    What makes a tensor without changing its values, as a flattening does, has the same range.
    """
    values = json.loads(content)
    producers = {name: node for node in model.graph.node for name in node.output}
    for tensor, sides in limits.items():
        name = tensor
        while name in values["data"]:
            for side, value in zip(("lowest", "highest"), sides, strict=True):
                values["data"][name][side]["data"] = [value]
            producer = producers.get(name)
            name = producer.input[0] if producer and producer.op_type in _MOVING else ""
    return json.dumps(values).encode()


def quantise_onnx(model: bytes, calibration: Sequence[Images], kept_operators: Collection[int] = ()) -> bytes:
    """Return `model` quantised to 8 bits; see `OnnxQuantiser`."""
    return OnnxQuantiser(model, calibration).quantise(kept_operators)


def graph_nodes(model: onnx.ModelProto) -> list[GraphNode]:
    """Return the operations of a model, without constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    producers: dict[str, int] = {}
    nodes: list[GraphNode] = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        operator = node.op_type in _OPERATORS and node.input[1] in constants
        sources = tuple(producers[name] for name in node.input if name in producers)
        producers.update({name: len(nodes) for name in node.output})
        nodes.append(GraphNode(node.name, operator, sources))
    return nodes


def _prepare(content: bytes) -> bytes:
    """Return the model optimised, with shapes, with a unique name for each operation."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "model.onnx", Path(folder) / "prepared.onnx"
        source.write_bytes(content)
        quant_pre_process(source, path, skip_symbolic_shape=True)
        model = onnx.load(path)
    for position, node in enumerate(model.graph.node):
        node.name = f"{position}_{node.op_type}"
    prepared: bytes = model.SerializeToString()
    return prepared


def _compact(content: bytes) -> bytes:
    """Return the model without shapes and names of inner values, with each constant stored once.

    Names and repeated scales take a quarter of a small network's quantised file.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    constants: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    initializers = []
    for tensor in graph.initializer:
        value = tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes()
        if value not in constants:
            constants[value] = f"c{len(constants)}"
            initializers.append(tensor)
        names[tensor.name] = tensor.name = constants[value]
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names.setdefault(name, f"t{len(names)}") for name in node.output]
    del graph.value_info[:], graph.initializer[:]
    graph.initializer.extend(initializers)
    compact: bytes = model.SerializeToString()
    return compact


def _reader(name: str, calibration: Sequence[Images]) -> object:
    """Return the calibration images in the form that the quantiser expects."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._iterator = iter(calibration)

        def get_next(self) -> dict[str, Images] | None:
            images = next(self._iterator, None)
            return None if images is None else {name: images}

    return Reader()


def _quantise_files(
    files: Files, calibration: Sequence[Images], trained: TrainedInputs | None = None
) -> Quantise:
    ((name, model),) = files.items()
    quantiser, metadata = OnnxQuantiser(model, calibration, trained), metadata_of(model)
    return lambda kept_operators: {name: with_metadata(quantiser.quantise(kept_operators), metadata)}


QUANTISER = Quantiser("onnx_runtime", _PACKAGES, _quantise_files)
