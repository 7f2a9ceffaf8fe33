"""ONNX files say what a program needs to use them; files for measuring say nothing of the kind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from any_modules import random_images, two_branches, two_branches_card

from ofa.common.files import sha256
from ofa.data.preprocessing import Preprocessing
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard
from ofa.export.evaluate import card_samples
from ofa.export.metadata import card_metadata
from ofa.export.precision import TargetPrecision
from ofa.export.write import export_bundle

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from ofa.compression.quantisation.registry import converted  # noqa: E402
from ofa.runtimes.onnx_export import metadata_of, with_metadata  # noqa: E402
from ofa.runtimes.registry import RUNTIMES  # noqa: E402


@pytest.fixture(scope="module")
def card() -> ModelCard:
    names = ("Ameise", "蜂", 'ca"t', "dog")
    return dataclasses.replace(
        two_branches_card(), class_names=names, preprocessing=Preprocessing((0.4,), (0.2,), 1 / 128)
    )


@pytest.fixture(scope="module")
def bundle(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with ONNX files in fp32 and int8."""
    samples = card_samples(two_branches_card(), random_images(1, 20), 20)
    path = tmp_path_factory.mktemp("metadata") / "bundle"
    target = TargetPrecision("int8", samples)
    return export_bundle(two_branches(), card, path, ["onnx"], target=target).path


@pytest.mark.parametrize("name", ["onnx", "onnx_int8"])
def test_the_files_alone_are_enough_to_feed_them_and_to_name_the_answer(
    bundle: Path, card: ModelCard, name: str
) -> None:
    session = onnxruntime.InferenceSession(str(load_bundle(bundle, two_branches()).file(name)))
    texts = session.get_modelmeta().custom_metadata_map
    values = {key: json.loads(texts[key]) for key in ("class_names", "mean", "std", "pixel_scale")}
    channels, height, width = json.loads(texts["input_shape"])
    pixels = np.full((1, channels, height, width), 77, np.uint8)
    mean, std = (np.array(values[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    images = ((pixels * values["pixel_scale"] - mean) / std).astype(np.float32)
    (logits,) = session.run(None, {"images": images})
    with torch.no_grad():
        own = two_branches()(card.preprocess(torch.from_numpy(pixels)))
    assert np.abs(logits - own.numpy()).max() < (1e-5 if name == "onnx" else 0.1)
    assert values["class_names"] == list(card.class_names)
    assert (texts["task"], json.loads(texts["centre_share"])) == ("classification", 1.0)
    assert json.loads(texts["expected_metric"]) == {"name": "top1", "value": 0.5}
    assert texts["project_version"].startswith("once-for-all-search ")


def test_the_bundle_records_the_files_with_their_metadata_and_two_exports_are_equal(
    bundle: Path, card: ModelCard, tmp_path: Path
) -> None:
    recorded = load_bundle(bundle, two_branches()).files
    for name in ("onnx", "onnx_int8"):
        assert sha256((bundle / recorded[name].file).read_bytes()) == recorded[name].sha256
    again = export_bundle(two_branches(), card, tmp_path / "again", ["onnx"])
    assert again.files["onnx"] == recorded["onnx"]


def test_nothing_is_said_of_what_is_not_expected(card: ModelCard) -> None:
    assert "expected_metric" not in card_metadata(dataclasses.replace(card, expected_metric=None))


def test_names_of_any_characters_are_text_that_every_file_can_hold(card: ModelCard) -> None:
    names = ("\udcff of a folder that is not UTF-8", "猫", 'a "quote"', "x")
    texts = card_metadata(dataclasses.replace(card, class_names=names))
    assert texts["class_names"].isascii() and tuple(json.loads(texts["class_names"])) == names


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_files_for_measuring_have_no_metadata_of_a_card(precision: str) -> None:
    (runtime,) = (runtime for runtime in RUNTIMES if runtime.name == "onnx_runtime")
    (model,) = converted(runtime, two_branches(), torch.zeros(1, 1, 10, 14), precision).values()
    assert not set(metadata_of(model)) & set(card_metadata(two_branches_card()))
    assert with_metadata(model, {}) is model
