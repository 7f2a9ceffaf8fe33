"""Expected latencies against measured ones, for the same engine, precision and processor alone."""

from __future__ import annotations

import dataclasses

import pytest

from ofa.common.latency_target import LatencyTarget, deviation_text, is_within_error, latency_line

TARGET = LatencyTarget("my_cpu_onnx", "onnx_runtime", processor="Xeon", error_percent=4.0)


def test_a_latency_of_the_same_kind_is_judged() -> None:
    here = dataclasses.replace(TARGET, device="other name", error_percent=None)
    line = latency_line(0.21, TARGET, 0.25, here)
    assert line == (
        "expected 0.21 ms on my_cpu_onnx, measured 0.25 ms: 19 % slower, "
        "more than twice the table's mean error of 4.0 %"
    )
    assert latency_line(0.21, dataclasses.replace(TARGET, error_percent=None), 0.25, here).endswith(
        "19 % slower"
    )


@pytest.mark.parametrize(
    ("measured_ms", "text"),
    [
        (1.079, "8 % slower, within twice the table's mean error of 4.0 %"),
        (0.921, "8 % faster, within twice the table's mean error of 4.0 %"),
        (0.91, "9 % faster, more than twice the table's mean error of 4.0 %"),
        (1.004, "as expected, within twice the table's mean error of 4.0 %"),
    ],
)
def test_two_errors_of_the_table_are_within(measured_ms: float, text: str) -> None:
    assert deviation_text(1.0, measured_ms, 4.0) == text


def test_a_table_that_expects_negative_times_is_called_wrong() -> None:
    assert deviation_text(-0.117, 1.9, 28.9) == "the table is wrong here: no time is negative"
    assert not is_within_error(-0.117, -0.117, 28.9)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"precision": "int8"}, "precision int8"),
        ({"engine": "openvino", "threads": 2}, "engine openvino, threads 2"),
        ({"processor": "Arm"}, "processor Arm"),
        ({"batch_size": 8}, "batch size 8"),
    ],
)
def test_a_latency_of_another_kind_is_not_compared(change: dict[str, object], text: str) -> None:
    here = dataclasses.replace(TARGET, **change)  # type: ignore[arg-type]
    assert latency_line(0.21, TARGET, 0.25, here) == (
        f"expected 0.21 ms on my_cpu_onnx (onnx_runtime, fp32, 1 thread): not compared with {text}"
    )


def test_what_is_not_known_is_no_difference() -> None:
    imported = dataclasses.replace(TARGET, processor="")
    assert imported.differences(TARGET) == TARGET.differences(imported) == []
    assert latency_line(0.21, None, 0.25, TARGET) == (
        "expected 0.21 ms on a device that is not recorded: not compared"
    )
    assert dataclasses.replace(TARGET, threads=4, batch_size=2).text == (
        "my_cpu_onnx (onnx_runtime, fp32, 4 threads, 2 images a run)"
    )
