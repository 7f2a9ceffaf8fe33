from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from latency_tables.engines.pytorch import time_on_cuda
from latency_tables.engines.registry import create_engine
from latency_tables.measuring.build import journal_path
from latency_tables.measuring.networks import TimedNetwork, measure_network_ms, measure_networks
from latency_tables.measuring.tables import measure
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from ofa.architecture.lowering import distinct_layers
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.errors import UserError
from ofa.modules.static import static_layer
from ofa.runtimes.onnx_export import export_onnx
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

pytestmark = pytest.mark.timing

ENGINES = ("pytorch", "onnx_runtime", "openvino")


class Sleep(nn.Module):
    """Takes a known time in eager mode."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return images


def small_space() -> StagedSpace:
    stage = StageSpec(8, 2, (1, 2), (3,), (2, 3), "relu", True)
    return StagedSpace(
        "small", "mobilenet_v3", (8, 12), 8, 2, (stage,), (8, 16), num_classes=3, in_channels=1
    )


def quick(engine: str) -> DeviceSpec:
    device = DeviceSpec("quick", engine, min_rounds=2, rounds=2, runs_per_visit=1, warmup_runs=0, processes=1)
    try:
        create_engine(device)
    except UserError as error:
        pytest.skip(str(error))
    return device


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_is_measured_on_the_real_engine(engine: str, tmp_path: Path) -> None:
    space = small_space()
    path = tmp_path / "table.json"
    device = quick(engine)
    table = measure(space, device, path, seed=0, num_calibration=2, num_validation=3)
    assert set(table.entries) == {spec.key for spec in distinct_layers(space)}
    assert all(math.isfinite(e.latency_ms) and e.latency_ms > 0 for e in table.entries.values())
    assert {entry.count for entry in table.entries.values()} == {2}
    assert LatencyTable.load(path) == table
    assert not journal_path(path).exists()
    assert table.engine == create_engine(device).describe()
    assert table.engine["version"] and table.engine["processor"]


@pytest.mark.parametrize("engine", ENGINES)
def test_measuring_leaves_module_threads_and_random_state_alone(engine: str) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    timing = measure_network_ms(module, (2, 6, 6), quick(engine))
    assert timing.count >= 2
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_eager_engine_runs_with_the_threads_of_the_device_and_restores_them_after_an_error() -> None:
    before = torch.get_num_threads()
    engine = create_engine(DeviceSpec("d", "pytorch", threads=3))
    with pytest.raises(RuntimeError, match="boom"), engine.measuring():
        assert torch.get_num_threads() == 3
        raise RuntimeError("boom")
    assert torch.get_num_threads() == before


def test_eager_engine_returns_milliseconds() -> None:
    run = create_engine(quick("pytorch")).prepare(Sleep(), torch.zeros(1))
    assert 20 <= run() < 2000


def test_eager_engine_uses_the_dtype_in_eval_and_inference_mode() -> None:
    seen: list[tuple[torch.dtype, torch.dtype, bool, bool]] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((images.dtype, self.weight.dtype, self.training, torch.is_inference_mode_enabled()))
            return images

    create_engine(DeviceSpec("d", "pytorch", precision="bf16")).prepare(Probe(), torch.zeros(1))()
    assert seen == [(torch.bfloat16, torch.bfloat16, False, True)]


def test_exported_layer_computes_what_the_module_computes() -> None:
    torch.manual_seed(0)
    layer = static_layer(MBConvSpec(9, 8, 8, 5, 1, "hard_swish", True, mid_channels=24)).eval()
    images = torch.randn(2, 8, 9, 9)
    model = export_onnx(layer, images)
    onnx.checker.check_model(onnx.load_from_string(model))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    np.testing.assert_allclose(output, layer(images).detach().numpy(), atol=1e-5)


def test_several_networks_are_timed_under_their_names() -> None:
    networks = {
        "short": TimedNetwork(nn.Identity(), (1, 4, 4)),
        "long": TimedNetwork(Sleep(), (1, 4, 4)),
    }
    timings = measure_networks(networks, quick("pytorch"))
    assert list(timings) == ["short", "long"]
    assert timings["long"].latency_ms >= 20
    assert timings["short"].latency_ms < timings["long"].latency_ms


def test_cuda_runs_are_timed_between_two_events_on_an_idle_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("wait for the end")

        def elapsed_time(self, end: Event) -> float:
            assert end is not self
            return 1.5

    class Module(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            calls.append("module")
            return images

    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: calls.append("idle"))
    assert time_on_cuda(Module(), torch.zeros(1))() == 1.5
    assert calls == ["idle", "record", "module", "record", "wait for the end"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_events_measure_work_on_the_device() -> None:
    device = DeviceSpec("gpu", "pytorch", accelerator="cuda", rounds=3, warmup_runs=2)
    networks = {
        "small": TimedNetwork(nn.Conv2d(8, 8, 3), (8, 8, 8)),
        "large": TimedNetwork(nn.Sequential(*(nn.Conv2d(64, 64, 3) for _ in range(8))), (64, 256, 256)),
    }
    timings = measure_networks(networks, device)
    assert 0 < timings["small"].latency_ms < timings["large"].latency_ms
