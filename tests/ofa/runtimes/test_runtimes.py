"""Every installed runtime computes what PyTorch computes, in its precision and quietly; others say why."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from randomised import randomise
from torch import Tensor, nn

from latency_tables.engines.registry import create_engine
from latency_tables.table.device import DeviceSpec
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.errors import UserError
from ofa.compression.quantisation.registry import converted, offers_of
from ofa.modules.static import static_layer
from ofa.runtimes import executorch, ncnn, onnx_runtime, openvino, registry, tensorrt
from ofa.runtimes.base import (
    Runtime,
    Session,
    each_image,
    missing_packages,
    offered_text,
    quiet,
    write_files,
)
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

RUNTIMES = {runtime.name: runtime for runtime in registry.RUNTIMES if runtime is not tensorrt.RUNTIME}
FAMILIES = ["micro_space", "micro_proxyless", "micro_resnet"]
QUANTISING = ["onnx_runtime", "openvino"]


def installed(name: str) -> Runtime:
    runtime = RUNTIMES[name]
    missing = missing_packages(runtime.packages)
    if missing:
        pytest.skip(f"the extra {runtime.extra} is not installed ({', '.join(missing)})")
    return runtime


@pytest.fixture(params=RUNTIMES)
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def runtime(name: str) -> Runtime:
    return installed(name)


@pytest.fixture(scope="module")
def layer() -> nn.Module:
    """A block with everything: expansion, kernel 5, squeeze-excite, stride, hard-swish."""
    module = static_layer(MBConvSpec(9, 8, 16, 5, 2, "hard_swish", True, mid_channels=24)).eval()
    randomise(module, 0)
    return module


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(1))


def loaded(
    runtime: Runtime,
    module: nn.Module,
    images: Tensor,
    folder: Path,
    precision: str = "fp32",
    threads: int = 1,
) -> Session:
    write_files(folder, converted(runtime, module, images, precision))
    return runtime.load(folder, threads, precision, "cpu")


@torch.no_grad()
def relative_error(session: Session, module: nn.Module, images: Tensor) -> float:
    """Return the largest |difference| from PyTorch's output, relative to the largest |output|."""
    expected, found = module(images), session(images)
    assert found.dtype == torch.float32
    assert found.numel() == expected.numel() and len(found) == len(expected)
    return float((found.reshape(expected.shape) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_of_every_family_compute_the_same(
    runtime: Runtime,
    family: str,
    make_supernet: Callable[[StagedSpace, int], Supernet],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    space: StagedSpace = request.getfixturevalue(family)
    network = make_supernet(space, 0).extract(space.largest).eval()
    images = torch.randn(1, *network.image_shape, generator=torch.Generator().manual_seed(2))
    session = loaded(runtime, network, images, tmp_path)
    assert session(images).shape == (1, space.num_classes)
    assert relative_error(session, network, images) < 1e-4


def test_a_layer_computes_the_same_and_is_left_as_it_was(
    runtime: Runtime, layer: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    mine = copy.deepcopy(layer).train()
    before = {key: tensor.clone() for key, tensor in mine.state_dict().items()}
    state = torch.get_rng_state()
    session = loaded(runtime, mine, images, tmp_path)
    assert relative_error(session, layer, images) < 1e-4
    assert mine.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in mine.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_several_images_at_once(runtime: Runtime, layer: nn.Module, images: Tensor, tmp_path: Path) -> None:
    several = torch.cat([images, 2 * images, -images])
    if runtime.one_image:
        with pytest.raises(UserError, match="one image at a time; 3 were given"):
            runtime.convert(layer, several, "fp32")
        return
    assert relative_error(loaded(runtime, layer, several, tmp_path), layer, several) < 1e-4


@torch.no_grad()
def test_an_output_stays_as_it_was_when_the_session_runs_again(
    runtime: Runtime, layer: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    session = loaded(runtime, layer, images, tmp_path)
    first = session(images)
    kept = first.clone()
    assert not torch.allclose(session(-images), kept)
    session.bind(2 * images)()
    assert torch.equal(first, kept)


def test_bound_runs_keep_their_own_images(
    runtime: Runtime, layer: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    session = loaded(runtime, layer, images, tmp_path)
    runs = [session.bind(images.clone()), session.bind(torch.zeros_like(images))]
    for _ in range(3):
        for run in runs:
            run()
    assert relative_error(session, layer, images) < 1e-4


def test_converting_loading_and_running_say_nothing(
    runtime: Runtime, layer: nn.Module, images: Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime.offers()  # the first import of a package is not what is tested
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded(runtime, layer, images, tmp_path)(images)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(warning.message) for warning in caught]) == ("", "", [])


@pytest.mark.parametrize("name", QUANTISING)
def test_int8_is_near(
    name: str, micro_space: StagedSpace, make_supernet: Callable[[StagedSpace, int], Supernet], tmp_path: Path
) -> None:
    runtime = installed(name)
    if name == "openvino" and missing_packages(("nncf",)):
        pytest.skip("nncf is not installed")
    network = make_supernet(micro_space, 0).extract(micro_space.largest).eval()
    images = torch.randn(1, *network.image_shape, generator=torch.Generator().manual_seed(2))
    error = relative_error(loaded(runtime, network, images, tmp_path, "int8"), network, images)
    assert 1e-4 < error < 0.25


def test_openvino_computes_in_the_precision_and_with_the_threads_that_were_asked_for(
    layer: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    runtime = installed("openvino")
    for precision, threads, expected in (("fp32", 1, "f32"), ("fp32", 2, "f32"), ("int8", 1, "f32")):
        if precision in runtime.offers()["cpu"]:
            write_files(tmp_path, runtime.convert(layer, images, "fp32"))
            compiled = openvino.load(tmp_path, threads, precision).compiled
            assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
            assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == expected
            assert compiled.get_property("NUM_STREAMS") == 1


def test_openvino_bf16_rounds_like_bf16(layer: nn.Module, images: Tensor, tmp_path: Path) -> None:
    runtime = installed("openvino")
    if "bf16" not in runtime.offers()["cpu"]:
        pytest.skip("this processor has no bf16 instructions")
    error = relative_error(loaded(runtime, layer, images, tmp_path, "bf16"), layer, images)
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize(
    ("capabilities", "offered"),
    [(["FP32", "INT8"], ("fp32", "int8")), (["FP32", "BF16"], ("fp32", "bf16", "int8"))],
)
def test_bf16_needs_a_processor_that_has_it(
    capabilities: list[str], offered: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("openvino")

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return capabilities

    monkeypatch.setattr(openvino, "core", Core)
    assert openvino.RUNTIME.offers() == {"cpu": offered}
    device = DeviceSpec("d", "openvino", precision="bf16")
    if "bf16" in offered:
        create_engine(device)
        return
    with pytest.raises(UserError, match=r"asks for bf16 on cpu; engine openvino offers fp32, int8 on cpu"):
        create_engine(device)


@pytest.mark.parametrize("name", ["onnx_runtime", "ncnn"])
def test_runs_use_the_threads_they_were_given(name: str, tmp_path: Path) -> None:
    """Both keep a pool of threads, which the system counts."""
    runtime = installed(name)
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("this system does not list threads")
    module = nn.Conv2d(16, 64, 3).eval()
    images = torch.randn(1, 16, 64, 64)
    started = []
    for threads in (1, 1, 4):
        before = len(list(tasks.iterdir()))
        run = loaded(runtime, module, images, tmp_path, threads=threads).bind(images)
        run()
        started.append(len(list(tasks.iterdir())) - before)
    # The first run starts what is not the engine's; one of four may be a thread that PyTorch has started.
    assert started[1:] in ([0, 3], [0, 2])


@pytest.mark.parametrize("threads", [1, 2])
def test_executorch_runs_with_the_threads_it_was_given(
    threads: int, layer: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    runtime = installed("executorch")
    loaded(runtime, layer, images, tmp_path, threads=threads).bind(images)()
    assert executorch.thread_count() == threads


# -- what is not offered ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, runtime in RUNTIMES.items() if runtime.packages])
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    runtime = RUNTIMES[name]
    with pytest.raises(UserError) as caught:
        create_engine(DeviceSpec("d", name))
    needed = " and ".join(runtime.packages)
    assert str(caught.value) == (
        f"Engine {name} needs {needed}; install with: pip install -e '.[{runtime.extra}]'"
    )


@pytest.mark.parametrize(("precision", "accelerator"), [("fp32", "other"), ("fp16", "cpu")])
def test_what_is_not_offered_is_an_error_that_lists_what_is(
    runtime: Runtime, name: str, precision: str, accelerator: str
) -> None:
    device = DeviceSpec("d", name, accelerator, precision=precision)
    with pytest.raises(UserError) as caught:
        create_engine(device)
    assert f"offers {offered_text(offers_of(runtime))} on this machine" in str(caught.value)
    assert f"asks for {device.precision} on {accelerator}" in str(caught.value)


def test_gpu_providers_are_needed_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    installed("onnx_runtime")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        UserError, match=r"fp32 on cuda; engine onnx_runtime offers fp32, int8 on cpu on this"
    ):
        create_engine(DeviceSpec("d", "onnx_runtime", "cuda"))
    with pytest.raises(UserError, match=r"fp16 on cuda; engine tensorrt offers nothing on this machine"):
        create_engine(DeviceSpec("d", "tensorrt", "cuda", precision="fp16"))
    there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: there)
    create_engine(DeviceSpec("d", "onnx_runtime", "cuda", precision="fp16"))
    create_engine(DeviceSpec("d", "tensorrt", "cuda"))


class FakeSession:
    """Stands for a session whose providers are those that started."""

    def __init__(self, started: list[str]) -> None:
        self._started = started

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "images"})()]

    def get_providers(self) -> list[str]:
        return self._started

    def run(self, outputs: None, feed: dict[str, Any]) -> list[Any]:
        return [feed["images"]]


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        (onnx_runtime.load, [("CUDAExecutionProvider", {"use_tf32": "0"})]),
        (
            tensorrt.load,
            [("TensorrtExecutionProvider", {"trt_fp16_enable": "True"}), "CUDAExecutionProvider"],
        ),
    ],
)
def test_a_gpu_session_asks_for_its_provider_and_refuses_to_fall_back(
    load: Callable[[Path, int, str, str], Session], wanted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("onnx_runtime")
    first = wanted[0][0]
    for started in ([first, "CPUExecutionProvider"], ["CPUExecutionProvider"]):

        def create(
            model: str, options: object, providers: list[Any], started: list[str] = started
        ) -> FakeSession:
            assert providers == wanted
            return FakeSession(started)

        monkeypatch.setattr("onnxruntime.InferenceSession", create)
        if first in started:
            session = load(Path(), 1, "fp16", "cuda")
            images = torch.ones(1, 2)
            assert session(images).dtype == torch.float32
            assert np.asarray(session.bind(images)()).dtype == np.float16
        else:
            with pytest.raises(UserError, match=f"has {first} but could not start it .*CPUExecutionProvider"):
                load(Path(), 1, "fp16", "cuda")


def test_a_wheel_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    installed("executorch")
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(
        UserError, match=rf"ExecuTorch .* does not load with PyTorch {torch.__version__[:4]}.*another"
    ):
        create_engine(DeviceSpec("d", "executorch"))


def test_what_pnnx_cannot_convert_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("ncnn")
    script = tmp_path / "pnnx"
    script.write_text("#!/bin/sh\necho unknown operator >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr("pnnx.EXEC_PATH", str(script))
    with pytest.raises(UserError, match=r"could not convert .*exit code 3; unknown operator"):
        ncnn.convert(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2), "fp32")


def test_ncnn_is_measured_one_image_at_a_time() -> None:
    installed("ncnn")
    with pytest.raises(UserError, match=r"batch_size 4; engine ncnn runs one image at a time"):
        create_engine(DeviceSpec("d", "ncnn", batch_size=4))


# -- helpers -------------------------------------------------------------------------------------


def test_each_image_runs_alone_and_outputs_are_joined() -> None:
    seen: list[tuple[int, ...]] = []

    def logits(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape))
        return images.sum((1, 2))

    images = torch.arange(12.0).reshape(3, 2, 2)
    assert each_image(logits)(images).tolist() == [6.0, 22.0, 38.0]
    assert seen == [(1, 2, 2)] * 3


def test_offered_text() -> None:
    assert offered_text({"cpu": ("fp32", "int8"), "cuda": ("fp16",)}) == "fp32, int8 on cpu; fp16 on cuda"


def test_quiet_restores_the_level_of_loggers_after_an_error() -> None:
    import logging

    logger = logging.getLogger("onnxscript")
    before = logger.level
    with pytest.raises(RuntimeError), quiet():
        assert logger.level == logging.ERROR
        raise RuntimeError
    assert logger.level == before


def test_threads_of_executorch_are_not_changed_under_a_loaded_network(
    layer: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    runtime = installed("executorch")
    session = loaded(runtime, layer, images, tmp_path, threads=1)
    with pytest.raises(
        UserError, match="runs with 1 threads in this process, and 1 networks .*; 3 threads need"
    ):
        runtime.load(tmp_path, 3, "fp32", "cpu")
    assert relative_error(session, layer, images) < 1e-4


def test_openvino_reports_nothing_to_its_makers() -> None:
    pytest.importorskip("openvino_telemetry")
    pytest.importorskip("openvino")
    code = (
        "from openvino_telemetry.utils.sender import TelemetrySender\n"
        "TelemetrySender.send = lambda self, backend, message: print('sent')\n"
        "import os\n"
        "from ofa.runtimes.openvino import core\n"
        "core()\n"
        "print(os.environ.get('CI'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=environment
    )
    assert done.stdout == "None\n"
