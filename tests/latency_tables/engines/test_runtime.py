"""Every installed engine times layers and networks, and describes what it measured."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from randomised import randomise
from torch import Tensor, nn

from latency_tables.engines.base import Engine, timed
from latency_tables.engines.registry import ENGINES, create_engine
from latency_tables.engines.torch_compile import TorchCompileEngine, compiled
from latency_tables.table.device import DeviceSpec
from ofa.architecture.common_layers import ConvSpec
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.errors import UserError
from ofa.modules.static import static_layer
from ofa.runtimes import tensorrt
from ofa.runtimes.registry import RUNTIMES
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

pytestmark = pytest.mark.timing

ON_PROCESSORS = ["pytorch", *(runtime.name for runtime in RUNTIMES if runtime is not tensorrt.RUNTIME)]


def engine_of(name: str, precision: str = "fp32") -> Engine:
    try:
        return create_engine(DeviceSpec("d", name, precision=precision))
    except UserError as error:
        if "install with" in str(error):
            pytest.skip(str(error))
        raise


def block() -> nn.Module:
    module = static_layer(MBConvSpec(9, 8, 16, 5, 2, "hard_swish", True, mid_channels=24))
    randomise(module, 0)
    return module


def test_every_engine_is_tested() -> None:
    assert {*ON_PROCESSORS, "torch_compile", "tensorrt", "imported"} == set(ENGINES)


@pytest.mark.parametrize("name", ON_PROCESSORS)
def test_layers_and_networks_take_a_positive_time_and_nothing_is_said(
    name: str,
    micro_space: StagedSpace,
    make_supernet: Callable[[StagedSpace, int], Supernet],
    capfd: pytest.CaptureFixture[str],
) -> None:
    engine = engine_of(name)
    network = make_supernet(micro_space, 0).extract(micro_space.largest)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught, engine.measuring():
        warnings.simplefilter("always")
        runs = [
            engine.prepare(block(), torch.randn(1, 8, 9, 9)),
            engine.prepare(network, torch.randn(1, *network.image_shape)),
        ]
        times = [run() for _ in range(3) for run in runs]
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(warning.message) for warning in caught]) == ("", "", [])
    assert all(math.isfinite(time) and 0 < time < 10_000 for time in times)


@pytest.mark.parametrize("name", [*ON_PROCESSORS, "torch_compile"])
def test_engines_describe_what_makes_latencies_comparable(name: str) -> None:
    description = engine_of(name).describe()
    assert {"engine", "version", "processor", "clock"} <= set(description)
    assert all(isinstance(text, str) and text for text in description.values())
    assert description == engine_of(name).describe()


def test_a_timed_call_is_made_once_per_run() -> None:
    calls: list[int] = []
    run = timed(lambda: calls.append(1))
    assert calls == [] and run() > 0 and len(calls) == 1


# -- torch.compile ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_however_many_there_are() -> None:
    images = torch.randn(1, 4, 6, 6)
    layers = [static_layer(ConvSpec(6, 4, out, 1, 1, "relu")).eval() for out in (4, 8, 12)]
    with (
        torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True),
        torch.inference_mode(),
    ):
        for layer in layers:
            randomise(layer, 0)
            run = compiled(copy.deepcopy(layer), images)
            torch.testing.assert_close(run(images), layer(images), rtol=1e-4, atol=1e-5)


def test_torch_compile_is_timed_after_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []

    def compile_nothing(module: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
        def run(given: Tensor) -> Tensor:
            calls.append(given.dtype)
            return given

        return run

    monkeypatch.setattr("latency_tables.engines.torch_compile.compiled", compile_nothing)
    engine = TorchCompileEngine(DeviceSpec("d", "torch_compile", precision="bf16", threads=2))
    before = torch.get_num_threads()
    with engine.measuring():
        assert torch.get_num_threads() == 2
        run = engine.prepare(block(), torch.randn(1, 8, 9, 9))
        assert calls == [torch.bfloat16] and run() > 0
    assert len(calls) == 2 and torch.get_num_threads() == before


def test_torch_compile_needs_a_compiler_and_offers_only_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="int8 on cpu; engine torch_compile offers fp32, fp16, bf16 on cpu"):
        create_engine(DeviceSpec("d", "torch_compile", precision="int8"))
    with pytest.raises(UserError, match="fp32 on cuda; engine torch_compile offers"):
        create_engine(DeviceSpec("d", "torch_compile", "cuda"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        create_engine(DeviceSpec("d", "torch_compile"))
