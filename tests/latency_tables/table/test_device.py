from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from latency_tables.engines.registry import ENGINES, create_engine
from latency_tables.table.device import DeviceSpec
from ofa.common.config import ConfigError, build
from ofa.common.errors import UserError
from ofa.common.shipped import CONF
from ofa.launch import compose_group

DEVICES = sorted(path.stem for path in (CONF / "device").glob("*.yaml"))


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_builds_under_its_name_and_states_every_setting(name: str) -> None:
    values = compose_group("device", name)
    device = build(DeviceSpec, values)
    assert device.name == name
    assert device.engine in ENGINES
    assert dataclasses.asdict(device) == values


def test_the_three_devices_are_there() -> None:
    assert set(DEVICES) >= {"my_cpu", "my_cpu_onnx", "my_gpu"}


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("name", "a/b", "'a/b'"),
        ("accelerator", "cdua", "known: cpu, cuda, other. Did you mean 'cuda'"),
        ("precision", "fp8", "known: bf16, fp16, fp32, int8, other"),
        ("threads", 0, "threads is 0; expected at least 1"),
        ("batch_size", -1, "batch_size is -1"),
        ("rounds", 0, "rounds is 0"),
        ("min_rounds", 0, "min_rounds is 0; expected at least 1"),
        ("processes", 0, "processes is 0; expected at least 1"),
        ("spread_percent", 0.0, "spread_percent is 0.0; expected a number above 0"),
        ("minutes", float("nan"), "minutes is nan; expected a number"),
        ("method", "sandwhich", "known: isolated, sandwich. Did you mean 'sandwich'"),
        ("affinity", [], "affinity is []; expected the numbers of different cores"),
        ("affinity", [1, 1], "affinity is [1, 1]; expected the numbers of different cores"),
        ("runs_per_visit", 0, "runs_per_visit is 0"),
        ("warmup_runs", -1, "warmup_runs is -1; expected at least 0"),
    ],
)
def test_wrong_settings_are_named_with_what_is_expected(setting: str, value: Any, text: str) -> None:
    values = {"name": "d", "engine": "pytorch"} | {setting: value}
    with pytest.raises(ConfigError, match=r"expected|known") as caught:
        build(DeviceSpec, values)
    assert text in str(caught.value)


def test_all_wrong_settings_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        DeviceSpec("a/b", "pytorch", "tpu", threads=0, precision="fp8", minutes=-1.0)
    assert len(str(caught.value).splitlines()) == 5


def test_affinity_is_a_tuple_of_cores() -> None:
    values = {"name": "d", "engine": "pytorch", "affinity": [0, 1]}
    assert build(DeviceSpec, values).affinity == (0, 1)


def test_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="Unknown engine 'pytroch'; known: executorch, imported, .*'pytorch'"):
        create_engine(DeviceSpec("d", "pytroch"))


def test_onnx_runtime_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match=r"bf16 on cpu.*engine: pytorch"):
        create_engine(DeviceSpec("d", "onnx_runtime", precision="bf16"))


def test_missing_onnx_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx and onnxruntime; install with: pip install -e '\.\[onnx\]'"):
        create_engine(DeviceSpec("d", "onnx_runtime"))


def test_cuda_without_cuda_is_an_error_that_names_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"'g' needs CUDA.*device=my_cpu"):
        create_engine(DeviceSpec("g", "pytorch", accelerator="cuda"))


def test_nothing_is_measured_on_an_imported_device() -> None:
    with pytest.raises(UserError, match="'phone' has an imported latency table only"):
        create_engine(DeviceSpec("phone", "imported", "other", precision="other"))
    with pytest.raises(UserError, match="asks for other on other; engine pytorch offers fp32"):
        create_engine(DeviceSpec("phone", "pytorch", "other", precision="other"))
