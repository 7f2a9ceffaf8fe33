"""What a bundle lets expect: on which images, of which precision, on which device; and old bundles."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ofa.common.errors import UserError
from ofa.common.expectation import MEASURED, PREDICTED, MetricValue, measured_value
from ofa.common.latency_target import LatencyTarget
from ofa.common.metric import TOP1
from ofa.data.settings import DataInfo
from ofa.export.bundle import Bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.description import describe, read_description
from ofa.export.expectation import expected_value, export_lines, format_for, latency_lines, metric_lines
from ofa.export.readme import bundle_readme
from ofa.export.record import ExportedFile
from ofa.space.staged import StagedSpace

INFO = DataInfo("toy", 2, ("ant", "bee", "cat", "dog", "eel"), (0.5, 0.25), (0.2, 0.4))
PREDICTION = MetricValue("top1", 0.7, 0.03, PREDICTED, "validation", "90 images of toy", 0, 0.72, 40)
TARGET = LatencyTarget("phone", "onnx_runtime", "fp32", 2, 1, "Arm", 3.5)
FP32 = ExportedFile("model.onnx", "0", 1, 0.0)
INT8 = dataclasses.replace(
    FP32,
    file="int8/model.onnx",
    precision="int8",
    validation_metric=measured_value(TOP1, 0.5, "validation", 90, ""),
    fp32_validation_metric=measured_value(TOP1, 0.52, "validation", 90, ""),
)
FILES = {"weights": FP32, "onnx": FP32, "onnx_int8": INT8}


@pytest.fixture
def card(micro_space: StagedSpace) -> ModelCard:
    return subnet_card(
        micro_space,
        micro_space.largest,
        INFO,
        expected_metric=PREDICTION,
        expected_latency_ms={"latency_ms": 1.5, "latency_ms on old": 2.0},
        latency_targets={"latency_ms": TARGET},
    )


@pytest.fixture
def bundle(card: ModelCard) -> Bundle:
    return Bundle(Path("nowhere"), card, FILES, {}, "", None)


def test_the_facts_of_an_expectation_are_in_the_description(card: ModelCard, tmp_path: Path) -> None:
    file = tmp_path / "subnet.json"
    values = describe(card, FILES)
    assert values["expected_metric"] == {
        "name": "top1",
        "value": 0.7,
        "deviation": 0.03,
        "source": "predicted",
        "split": "validation",
        "images": "90 images of toy",
        "best_record": 0.72,
        "num_records": 40,
    }
    file.write_text(json.dumps(values))
    description, read_card = read_description(file)
    assert read_card == card and description.files == FILES
    # A bundle from before: name and value alone, and latencies without a device.
    values["expected_metric"] = {"name": "top1", "value": 0.7}
    del values["latency_targets"]
    for entry in values["files"].values():
        for name in ("validation", "fp32_validation"):
            metric = entry.pop(f"{name}_metric")
            entry[f"{name}_top1"] = None if metric is None else metric["value"]
    values["files"]["onnx_int8"]["num_validation_images"] = 90
    file.write_text(json.dumps(values))
    old_description, old = read_description(file)
    assert old_description.files == FILES
    assert old.expected_metric == MetricValue("top1", 0.7) and old.latency_targets == {}


def test_a_deviation_below_zero_is_refused(card: ModelCard) -> None:
    with pytest.raises(UserError, match="deviation of the expected top1 is -1; expected 0 or more"):
        dataclasses.replace(card, expected_metric=dataclasses.replace(PREDICTION, deviation=-1))


def test_the_readme_says_on_which_images_and_for_which_device(card: ModelCard) -> None:
    text = bundle_readme(card, {"weights": FP32})
    assert "Expected top-1: 70.0 ± 3.0 % (predicted for validation: 90 images of toy)." in text
    assert "Expected latency: 1.5 ms on phone (onnx_runtime, fp32, 2 threads)." in text
    measured = dataclasses.replace(card, expected_metric=measured_value(TOP1, 0.5, "validation", 98, "toy"))
    # sqrt(0.5 * 0.5 / 98) is 5.05 points.
    assert "Expected top-1: 50.0 ± 5.1 % (measured on validation: 98 images of toy)." in bundle_readme(
        measured, {"weights": FP32}
    )
    assert "Its accuracy was not measured." in bundle_readme(
        dataclasses.replace(card, expected_metric=None), {"weights": FP32}
    )


def test_a_file_of_lower_precision_is_judged_by_its_own_measurement(bundle: Bundle) -> None:
    assert expected_value(bundle, "onnx") == expected_value(bundle, "weights") == PREDICTION
    own = expected_value(bundle, "onnx_int8")
    assert own is not None and (own.value, own.source, own.num_images) == (0.5, MEASURED, 90)
    measured = measured_value(TOP1, 0.49, "test", 400, "toy")
    (line,) = metric_lines(bundle, "onnx_int8", measured, TOP1)
    assert line.startswith("top-1: expected 50.0 ± 5.3 % (measured on validation: 90 images), measured 49.0")
    assert line.endswith("within the errors; the expectation is that of the int8 file")
    (line,) = metric_lines(bundle, "onnx", measured, TOP1)
    assert line.startswith(
        "top-1: predicted 70.0 ± 3.0 %, measured 49.0 ± 2.5 %: the predictor is too optimistic"
    )
    assert "it knows only 40 records and the expectation is for validation" in line


def test_a_bundle_without_an_expectation_says_so(bundle: Bundle) -> None:
    unknown = dataclasses.replace(bundle, card=dataclasses.replace(bundle.card, expected_metric=None))
    measured = measured_value(TOP1, 0.49, "test", 400, "toy")
    assert metric_lines(unknown, "onnx", measured, TOP1) == ["the bundle has no expected top-1"]
    other = dataclasses.replace(bundle.card, expected_metric=MetricValue("map", 0.3))
    assert metric_lines(dataclasses.replace(bundle, card=other), "onnx", measured, TOP1) == [
        "the bundle has no expected top-1"
    ]


def test_an_export_that_measures_judges_the_prediction() -> None:
    (line,) = export_lines(PREDICTION, FILES)
    assert line.startswith(
        "fp32 on validation images: predicted 70.0 ± 3.0 %, measured 52.0 ± 5.3 %: the predictor"
    )
    assert export_lines(None, FILES) == export_lines(PREDICTION, {"weights": FP32}) == []


def test_latencies_are_judged_by_their_device(bundle: Bundle) -> None:
    lines = latency_lines(bundle, 1.6, dataclasses.replace(TARGET, device="here"))
    assert lines == [
        "expected 1.5 ms on phone, measured 1.6 ms: 7 % slower, within twice the table's mean error of 3.5 %",
        "expected 2 ms on a device that is not recorded: not compared",
    ]
    first, _ = latency_lines(bundle, 1.6, dataclasses.replace(TARGET, precision="int8"))
    assert first.endswith("not compared with precision int8")


@pytest.mark.parametrize(
    ("engine", "precision", "name"),
    [
        ("onnx_runtime", "fp32", "onnx"),
        ("onnx_runtime", "int8", "onnx_int8"),
        ("openvino", "fp32", None),
        ("pytorch", "fp32", None),
    ],
)
def test_the_file_of_an_expected_latency(engine: str, precision: str, name: str | None) -> None:
    assert format_for(dataclasses.replace(TARGET, engine=engine, precision=precision), FILES) == name
