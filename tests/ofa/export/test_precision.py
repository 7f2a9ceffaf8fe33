"""Tests of ofa.export.precision, bundle_run and bundle_readme: int8 beside fp32, run as the README says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ofa.export.formats
from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue
from ofa.compression.quantisation.calibration import single_images
from ofa.compression.quantisation.search_precision import MixedPrecisionSettings, Samples
from ofa.data.settings import DataInfo
from ofa.evaluation.evaluate import logits_top1
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.fresh_run import FreshRunSettings, bind_file, load_file, run_fresh
from ofa.export.precision import TargetPrecision, check_precision, format_key, offered_precisions
from ofa.export.write import export_bundle
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


ONNX = installed("onnx", "onnxscript", "onnxruntime")
ENGINES = {
    "onnx": ONNX,
    "openvino": ONNX and installed("openvino", "nncf"),
}
FORMATS = {name: installed(*kind.packages) for name, kind in ofa.export.formats.FORMATS.items()}
BOTH = [name for name, there in ENGINES.items() if there]
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def card(micro_space: StagedSpace) -> ModelCard:
    classes = ("ant", "bee", "cat", "dog", "eel")
    info = DataInfo("toy", 2, classes, (0.5, 0.25), (0.2, 0.4))
    return subnet_card(micro_space, micro_space.largest, info, expected_metric=MetricValue("top1", 0.75))


@pytest.fixture(scope="module")
def network(card: ModelCard, make_supernet: Callable[[StagedSpace, int], Supernet]) -> StaticNetwork:
    assert card.subnet is not None
    return make_supernet(card.subnet.family, 0).extract(card.subnet.config).eval()


@pytest.fixture(scope="module")
def samples(network: StaticNetwork) -> Samples:
    """Images whose labels are the network's own answers."""
    images = torch.randn(200, *network.image_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = network(images).argmax(1)

    def validation() -> Iterable[tuple[Tensor, Tensor]]:
        return [(images[:150], labels[:150]), (images[150:], labels[150:])]

    return Samples(single_images([images], 50), validation)


@pytest.fixture(scope="module")
def bundle(
    network: StaticNetwork, card: ModelCard, samples: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle with every format that can be written here, and both in int8 that can be."""
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    target = TargetPrecision("int8", samples, MixedPrecisionSettings((0, 3)))
    return export_bundle(network, card, path, BOTH, target=target).path


# -- what is offered -----------------------------------------------------------------------------


@needs_onnx
def test_formats_offer_what_their_engines_can() -> None:
    assert offered_precisions("pt2") == ("fp32",)
    assert offered_precisions("onnx") == ("fp32", "int8")


@needs_onnx
def test_all_that_does_not_fit_is_said_at_once(network: StaticNetwork) -> None:
    with pytest.raises(UserError) as caught:
        check_precision("int4", MixedPrecisionSettings((99,)), ["onnx", "pt2"], network.specs)
    lines = str(caught.value).splitlines()
    assert lines[0] == "Format onnx offers fp32, int8 on this processor, not int4."
    assert lines[1] == "Format pt2 offers fp32 on this processor, not int4."
    assert lines[2] == "keep_layers belongs to precision=int8; precision is int4."
    assert lines[3].startswith("Unknown layer 99") and len(lines) == 4
    check_precision("int8", MixedPrecisionSettings((0,)), ["onnx"], network.specs)
    check_precision("fp32", MixedPrecisionSettings(), ["onnx", "pt2"], network.specs)
    assert format_key("onnx", "int8") == "onnx_int8" and format_key("onnx", "fp32") == "onnx"


@needs_onnx
def test_nothing_is_written_when_the_precision_is_not_offered(
    network: StaticNetwork, card: ModelCard, samples: Samples, tmp_path: Path
) -> None:
    target = TargetPrecision("int8", samples)
    with pytest.raises(UserError, match="Format pt2 offers fp32 on this processor, not int8"):
        export_bundle(network, card, tmp_path / "bundle", ["pt2"], target=target)
    assert list(tmp_path.iterdir()) == []


# -- bundles with int8 ---------------------------------------------------------------------------


@pytest.mark.slow
@needs_onnx
def test_bundle_holds_int8_beside_fp32_with_its_measured_accuracy(bundle: Path, samples: Samples) -> None:
    loaded = load_bundle(bundle)
    assert list(loaded.files) == ["weights", *(key for name in BOTH for key in (name, f"{name}_int8"))]
    written = json.loads((bundle / "subnet.json").read_text())["files"]
    for name in BOTH:
        plain, small = loaded.files[name], loaded.files[f"{name}_int8"]
        assert (plain.precision, plain.validation_metric) == ("fp32", None)
        assert small.precision == "int8" and small.kept_layers == (0, 3)
        assert small.validation_metric is not None and small.fp32_validation_metric is not None
        assert small.file == f"int8/{plain.file}" and small.fp32_validation_metric.value == 1.0
        assert written[f"{name}_int8"]["precision"] == "int8"
        logits = load_file(loaded, f"{name}_int8")
        assert small.validation_metric.value == logits_top1(logits, samples.validation())
        assert small.validation_metric.value > 0.8 and small.max_difference > plain.max_difference


@pytest.mark.slow
@needs_onnx
def test_report_says_what_int8_did(bundle: Path, network: StaticNetwork, card: ModelCard) -> None:
    from ofa.export.write import ExportReport

    loaded = load_bundle(bundle)
    lines = ExportReport(bundle, loaded.files).lines()
    assert len(lines) == len(loaded.files)
    assert re.search(r"weights\.safetensors: 0\.\d+ MB, logits within 0\.0e\+00 of PyTorch's", lines[0])
    pattern = (
        r"int8/model\.onnx: 0\.\d+ MB, \d+ % of fp32; int8 top-1 .* fp32 100\.00 % \(loss .* layers 0, 3"
    )
    assert re.search(pattern, lines[2])


@pytest.mark.slow
@needs_onnx
@torch.no_grad()
def test_files_run_by_name(bundle: Path, network: StaticNetwork) -> None:
    loaded = load_bundle(bundle)
    images = torch.randn(3, *network.image_shape)
    for name in ("weights", *BOTH):
        torch.testing.assert_close(load_file(loaded, name)(images), network(images), rtol=1e-4, atol=1e-4)
        assert bind_file(loaded, name, images)() is not None
    with pytest.raises(UserError, match="has no format 'ncnn'; it has: weights, onnx"):
        load_file(loaded, "ncnn")


@pytest.mark.slow
@needs_onnx
def test_changed_int8_file_is_a_user_error(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy" / "int8" / "model.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match="differs from the file that was exported"):
        load_file(load_bundle(tmp_path / "copy"), "onnx_int8")


@pytest.mark.slow
@needs_onnx
def test_memory_and_time_come_from_a_process_of_its_own(bundle: Path) -> None:
    found = run_fresh(bundle, "onnx_int8", FreshRunSettings(batch_size=2, warmup_runs=1, runs=7))
    assert len(found.runs_ms) == 7 and min(found.runs_ms) > 0
    assert 1 < found.added_mib < found.peak_mib
    with pytest.raises(UserError, match="could not be run in a process of its own: .*has no format 'onx'"):
        run_fresh(bundle, "onx", FreshRunSettings())


# -- the README ----------------------------------------------------------------------------------


def blocks_of(readme: str) -> dict[str, str]:
    """Return the code under each heading, by the name of the format."""
    parts = re.findall(r"^## (\w+): .*?```python\n(.*?)```", readme, re.MULTILINE | re.DOTALL)
    return dict(parts)


def run_block(code: str, folder: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Run code of a README in a process of its own, on these pixels, and return its logits."""
    np.save(folder / "pixels.npy", pixels)
    as_tensor = "torch.from_numpy" if "load_bundle" in code else ""
    given = f"import numpy; pixels = {as_tensor}(numpy.load('pixels.npy'))"
    code, count = re.subn("pixels = .*", given, code)
    assert count == 1
    code += "\nimport numpy\nnumpy.save('logits.npy', logits)\n"
    root = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, timeout=120, capture_output=True, text=True
    )
    logits = torch.from_numpy(np.load(folder / "logits.npy"))
    names = load_bundle(folder).card.class_names
    first_line = done.stdout.splitlines()[0]
    assert first_line.startswith(f"{names[int(logits[0].argmax())]}: ") and first_line.endswith(" %")
    return logits


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ["weights", *(key for n in BOTH for key in (n, f"{n}_int8"))])
@torch.no_grad()
def test_the_readme_runs_as_it_stands(name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_bundle(bundle)
    check_readme(name, bundle, loaded.network, 0.2 if name.endswith("int8") else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"the extra {name} is not installed"))
        for name, there in FORMATS.items()
        if name not in ENGINES
    ],
)
@torch.no_grad()
def test_the_readme_of_other_formats_runs_as_it_stands(
    name: str, network: StaticNetwork, card: ModelCard, tmp_path: Path
) -> None:
    try:
        report = export_bundle(network, card, tmp_path / "bundle", [name])
    except UserError as error:
        pytest.skip(str(error))
    check_readme(name, report.path, network, 1e-2 if name == "ncnn" else 1e-4)


def check_readme(name: str, folder: Path, network: nn.Module, tolerance: float) -> None:
    code = blocks_of((folder / "README.md").read_text())[name]
    assert len(code.splitlines()) <= 14
    side = load_bundle(folder).subnet.config.resolution
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, side, side), dtype=np.uint8)
    mean, std = torch.tensor([0.5, 0.25]).view(2, 1, 1), torch.tensor([0.2, 0.4]).view(2, 1, 1)
    expected = network((torch.from_numpy(pixels) / 255 - mean) / std)
    found = run_block(code, folder, pixels)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.slow
@needs_onnx
def test_the_readme_says_what_is_known(bundle: Path, card: ModelCard) -> None:
    text = (bundle / "README.md").read_text()
    assert card.subnet is not None
    config = card.subnet.config
    assert config.id in text and str(config) in text and "75.00 %" in text
    assert "## onnx_int8: `int8/model.onnx`" in text
    assert "Layers 0, 3 are in floating point." in text
    assert "Top-1 on validation images: " in text and "in fp32 100.00 %" in text
    assert "centred square" not in text
