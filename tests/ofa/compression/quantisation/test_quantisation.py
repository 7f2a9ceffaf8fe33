"""Tests of ofa.quantisation: what is quantised and what is kept, for both quantisers and three families."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ofa.architecture.lowering import lower
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.compression.quantisation.calibration import single_images
from ofa.compression.quantisation.graph import GraphNode, kept_names, layers_with_operators, operators_of
from ofa.compression.quantisation.onnx import quantise_onnx
from ofa.compression.quantisation.openvino import quantise_openvino
from ofa.compression.quantisation.registry import QUANTISERS
from ofa.launch import compose_group
from ofa.modules.static import StaticNetwork
from ofa.runtimes import onnx_runtime, openvino
from ofa.runtimes.base import Files
from ofa.runtimes.onnx_export import export_onnx
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

FAMILIES = ("micro_space", "micro_proxyless", "micro_resnet")
MakeSupernet = Callable[[StagedSpace, int], Supernet]
Weight = tuple[bool, NDArray[np.float32]]
"""Whether an operator's weight is in floating point, and its values, quantised or not."""


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


QUANTISER_PARAMS = [
    pytest.param("onnx_runtime", marks=needs("onnx", "onnxruntime")),
    pytest.param("openvino", marks=needs("openvino", "nncf")),
]


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest, make_supernet: MakeSupernet) -> StaticNetwork:
    space: StagedSpace = request.getfixturevalue(request.param)
    return make_supernet(space, 0).extract(space.largest).eval()


@pytest.fixture
def micro(micro_space: StagedSpace, make_supernet: MakeSupernet) -> StaticNetwork:
    return make_supernet(micro_space, 0).extract(micro_space.largest).eval()


def calibration_of(network: StaticNetwork, count: int = 4) -> list[NDArray[np.float32]]:
    generator = torch.Generator().manual_seed(3)
    return single_images([torch.randn(count, *network.image_shape, generator=generator)], count)


def files_of(name: str, network: StaticNetwork) -> Files:
    model = export_onnx(network, torch.zeros(1, *network.image_shape))
    return {"model.onnx": model} if name == "onnx_runtime" else openvino.save(openvino.read_onnx(model))


def weights_in(name: str, files: Files) -> list[Weight]:
    """Return the weights of a quantised model's operators in the order they run."""
    return _weights_in_onnx(files) if name == "onnx_runtime" else _weights_in_openvino(files)


def _weights_in_onnx(files: Files) -> list[Weight]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(files["model.onnx"]).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantised = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    found = []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weight = node.input[1]
            found.append((weight in values, values[quantised.get(weight, weight)].astype(np.float32)))
    return found


def _weights_in_openvino(files: Files) -> list[Weight]:
    model = openvino.core().read_model(files["model.xml"], files["model.bin"])
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            source, kept = node.input_value(1).get_node(), True
            while source.get_type_name() != "Constant":
                kept = kept and source.get_type_name() == "Reshape"
                source = source.input_value(0).get_node()
            found.append((kept, np.array(source.data, np.float32)))
    return found


def operators_in(module: nn.Module) -> list[NDArray[np.float32]]:
    weights = [m.weight for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [weight.detach().numpy() for weight in weights]


def same_direction(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Return whether each output channel is a multiple of the expected one, as batch norm makes it."""
    if found.size != expected.size:
        return False
    rows, wanted = found.reshape(len(expected), -1), expected.reshape(len(expected), -1)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1)
    return bool(np.all(np.abs((rows * wanted).sum(1)) > 0.999 * norms))


# -- layers and operators ------------------------------------------------------------------------


def test_operators_of_layers_are_those_of_the_modules(network: StaticNetwork) -> None:
    counts = [len(operators_in(module)) for module in network.layers]
    assert [len(operators_of(network.specs, [i])) for i in range(len(counts)) if counts[i]] == [
        count for count in counts if count
    ]
    everything = layers_with_operators(network.specs)
    assert everything == tuple(i for i, count in enumerate(counts) if count)
    assert operators_of(network.specs, everything) == set(range(sum(counts)))
    assert operators_of(network.specs, ()) == frozenset()
    last = everything[-1]
    assert operators_of(network.specs, [last]) == {sum(counts) - 1}


def test_all_unknown_layers_are_named_at_once(micro: StaticNetwork) -> None:
    pool = next(i for i, spec in enumerate(micro.specs) if not spec.operators)
    with pytest.raises(UserError) as caught:
        operators_of(micro.specs, [0, pool, 99, -1])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"Unknown layer -1; the network has layers 0 to {len(micro.specs) - 1}."
    assert lines[1].startswith(f"Layer {pool} (pool-") and "no weights" in lines[1]
    assert lines[2].startswith("Unknown layer 99") and len(lines) == 3


def test_what_follows_a_kept_operator_is_kept_up_to_the_next() -> None:
    nodes = [
        GraphNode("input", False, ()),
        GraphNode("conv0", True, (0,)),
        GraphNode("relu0", False, (1,)),
        GraphNode("conv1", True, (2,)),
        GraphNode("add1", False, (2, 3)),
        GraphNode("conv2", True, (4,)),
    ]
    assert kept_names(nodes, [1]) == ["conv1", "add1"]
    assert kept_names(nodes, [0, 2]) == ["conv0", "relu0", "conv2"]
    assert kept_names(nodes, []) == []
    with pytest.raises(UserError, match=r"Operators -1, 3 have to stay .* graph has 3 .* \(0 to 2\)"):
        kept_names(nodes, [-1, 1, 3])


# -- quantisers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTISER_PARAMS)
def test_kept_layers_are_in_floating_point_and_all_others_are_not(name: str, network: StaticNetwork) -> None:
    files = files_of(name, network)
    quantise = QUANTISERS[name].prepare(files, calibration_of(network))
    layers = layers_with_operators(network.specs)
    for kept in ((), (layers[0], layers[3], layers[-1])):
        found = weights_in(name, quantise(operators_of(network.specs, kept)))
        expected = [
            (position in kept, weight)
            for position, module in enumerate(network.layers)
            for weight in operators_in(module)
        ]
        assert [is_kept for is_kept, _ in found] == [is_kept for is_kept, _ in expected]
        for layer in kept:
            those = sorted(operators_of(network.specs, [layer]))
            wanted = operators_in(network.layers[layer])
            # The branches of a block may run in any order.
            for position in those:
                assert any(same_direction(found[position][1], weight) for weight in wanted), (layer, position)


@pytest.mark.parametrize("name", QUANTISER_PARAMS)
@torch.no_grad()
def test_quantised_network_computes_nearly_the_same(
    name: str, micro: StaticNetwork, tmp_path: object
) -> None:
    runtime = {"onnx_runtime": onnx_runtime.RUNTIME, "openvino": openvino.RUNTIME}[name]
    calibration = calibration_of(micro, 16)
    quantise = QUANTISERS[name].prepare(files_of(name, micro), calibration)
    images = torch.from_numpy(calibration[0])
    expected = micro(images)
    errors = []
    for keep in ((), operators_of(micro.specs, layers_with_operators(micro.specs))):
        files = quantise(keep)
        from pathlib import Path

        folder = Path(str(tmp_path))
        for file, content in files.items():
            (folder / file).write_bytes(content)
        found = runtime.load(folder, 1, "int8", "cpu")(images)
        errors.append(float((found - expected).abs().max() / expected.abs().max()))
    assert 1e-4 < errors[0] < 0.2 and errors[1] < 1e-4


@needs("onnx", "onnxruntime")
def test_onnx_activations_are_unsigned_and_weights_signed_per_channel(micro: StaticNetwork) -> None:
    import onnx
    from onnx import numpy_helper

    quantise = QUANTISERS["onnx_runtime"].prepare(files_of("onnx_runtime", micro), calibration_of(micro))
    graph = onnx.load_from_string(quantise(())["model.onnx"]).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert activations and all(values[node.input[2]].dtype == np.uint8 for node in activations)
    weights = {n.output[0]: n.input for n in graph.node if n.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:
        weight, scale, _ = weights[node.input[1]]
        assert values[weight].dtype == np.int8 and values[scale].shape == (len(values[weight]),)
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


@needs("onnx", "onnxruntime")
@pytest.mark.parametrize("size", ["smallest", "largest"])
def test_onnx_file_is_less_than_a_third_of_the_original(size: str) -> None:
    space = build(StagedSpace, compose_group("space", "mobilenet_v3_tiny"))
    network = StaticNetwork(lower(space, getattr(space, size))).eval()
    model = files_of("onnx_runtime", network)["model.onnx"]
    assert len(quantise_onnx(model, calibration_of(network, 1))) <= 0.3 * len(model)


@pytest.mark.parametrize("name", QUANTISER_PARAMS)
def test_calibration_must_be_there_and_finite(name: str, micro: StaticNetwork) -> None:
    files = files_of(name, micro)
    with pytest.raises(UserError, match="No calibration images"):
        QUANTISERS[name].prepare(files, [])(())
    broken = calibration_of(micro, 2)
    broken[1][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="Calibration input 1 has values that are not finite"):
        QUANTISERS[name].prepare(files, broken)(())


@pytest.mark.parametrize("name", QUANTISER_PARAMS)
def test_an_operator_that_the_graph_lacks_is_a_user_error(name: str, micro: StaticNetwork) -> None:
    with pytest.raises(UserError, match="Operators 999 have to stay in floating point, but the graph has"):
        QUANTISERS[name].prepare(files_of(name, micro), calibration_of(micro))([999])


@pytest.mark.parametrize("name", QUANTISER_PARAMS)
def test_quantisation_is_quiet(name: str, micro: StaticNetwork, capfd: pytest.CaptureFixture[str]) -> None:
    prepared = QUANTISERS[name].prepare(files_of(name, micro), calibration_of(micro))
    capfd.readouterr()
    prepared(())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(("package", "extra"), [("onnxruntime", "onnx"), ("nncf", "openvino")])
def test_a_missing_package_names_the_extra(package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    images = [np.zeros((1, 1, 8, 8), np.float32)]
    with pytest.raises(UserError, match=rf"needs {package}; install with: .*\.\[{extra}\]"):
        quantise_onnx(b"", images) if extra == "onnx" else quantise_openvino(None, images)


def test_single_images_are_taken_across_batches() -> None:
    batches = [torch.full((2, 1, 2, 2), 0.0), torch.full((2, 1, 2, 2), 1.0)]
    found = single_images(batches, 3)
    assert [float(image.mean()) for image in found] == [0.0, 0.0, 1.0]
    assert all(image.shape == (1, 1, 2, 2) and image.dtype == np.float32 for image in found)
