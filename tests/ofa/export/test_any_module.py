"""Any module becomes a bundle: weights, engine files and a card, without a space."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from any_modules import CLASSES, TwoBranches, random_images, two_branches, two_branches_card
from PIL import Image
from torch import Tensor, nn
from training_run import make_data

from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue
from ofa.compression.quantisation.calibration import single_images
from ofa.compression.quantisation.search_precision import MixedPrecisionSettings, Samples
from ofa.data.base import ImageData, resize
from ofa.data.preprocessing import Preprocessing
from ofa.evaluation.evaluate import logits_top1, score
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.card import ModelCard
from ofa.export.evaluate import card_batches, card_samples, measure_file, runnable_module
from ofa.export.fresh_run import FreshRunSettings, load_file, run_fresh
from ofa.export.precision import TargetPrecision
from ofa.export.write import export_bundle
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

ENGINES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
ENGINE_FORMATS = [
    name for name, needs in ENGINES.items() if all(importlib.util.find_spec(package) for package in needs)
]
SHAPE = (1, 10, 14)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of two branches with its graph; tests do not change it."""
    path = tmp_path_factory.mktemp("bundles") / "two"
    export_bundle(two_branches(), two_branches_card(), path, ["pt2"])
    return path


def file_top1(bundle: Bundle, name: str, data: ImageData) -> float:
    return measure_file(bundle, name, data, "test").values()["top1"]


def images(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(7))


# -- there and back --------------------------------------------------------------------------------


@torch.no_grad()
def test_the_weights_come_back_into_a_module(bundle: Path) -> None:
    module = two_branches(seed=1).train()
    loaded = load_bundle(bundle, network=module)
    assert loaded.network is module and not module.training
    assert torch.equal(module(images(5)), two_branches()(images(5)))
    assert loaded.card == two_branches_card()
    assert module.mix_again.weight is module.mix.weight
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(load_file(loaded, "weights")(images(3)), module(images(3)))


@torch.no_grad()
def test_files_run_without_the_module_here_and_in_a_new_process(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    torch.testing.assert_close(load_file(loaded, "pt2")(images(4)), two_branches()(images(4)))
    run = run_fresh(bundle, "pt2", FreshRunSettings(runs=3, warmup_runs=1))
    assert len(run.runs_ms) == 3 and min(run.runs_ms) > 0
    with pytest.raises(UserError, match="process of its own: .*architecture of 'two branches' is not in the"):
        run_fresh(bundle, "weights", FreshRunSettings(runs=1))


@torch.no_grad()
def test_the_graph_stands_in_for_an_unknown_module(bundle: Path, tmp_path: Path) -> None:
    graph = runnable_module(load_bundle(bundle)).eval()
    torch.testing.assert_close(copy.deepcopy(graph)(images(3)), two_branches()(images(3)))
    with pytest.raises(UserError, match="cannot be trained"):
        graph.train()
    module = two_branches(seed=1)
    assert runnable_module(load_bundle(bundle, network=module)) is module
    export_bundle(two_branches(), two_branches_card(), tmp_path / "weights", ())
    with pytest.raises(UserError, match="run one of its files: none is there"):
        runnable_module(load_bundle(tmp_path / "weights"))


def test_the_description_holds_no_subnet_and_the_readme_runs(bundle: Path) -> None:
    values = json.loads((bundle / "subnet.json").read_text())
    assert values["subnet"] is None and values["input_shape"] == list(SHAPE)
    assert values["expected_metric"] == {"name": "top1", "value": 0.5}
    text = (bundle / "README.md").read_text()
    assert text.startswith("# two branches\n") and "Expected top-1: 50.00 %." in text
    assert "architecture is the module's own code" in text and "14 x 10 pixels" in text
    weights, graph = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    check = "import json; print(json.dumps({name: list(value.shape) for name, value in state.items()}))"
    shapes = json.loads(run_code(weights + check, bundle))
    assert shapes == {name: list(value.shape) for name, value in two_branches().state_dict().items()}
    pixels = torch.arange(140, dtype=torch.uint8).view(SHAPE[1:])
    Image.fromarray(pixels.numpy()).save(bundle / "photo.png")
    graph = graph.replace("photo.jpg", "photo.png")
    logits = json.loads(run_code(graph + "print(json.dumps(logits.tolist()))", bundle))
    expected = two_branches()(two_branches_card().preprocess(pixels[None, None]))
    torch.testing.assert_close(torch.tensor(logits), expected.detach(), rtol=1e-4, atol=1e-5)


def run_code(code: str, folder: Path) -> str:
    """Run code of a README in its folder, without this project, and return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.splitlines()[-1]


# -- on data ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_images_are_prepared_as_the_card_says() -> None:
    data, card = random_images(1, 20), two_branches_card()
    ((found, labels),) = card_batches(card, data, "test", limit=9)
    ((plain, expected_labels),) = data.batches("test", 250, torch.device("cpu"), limit=9)
    pixels = plain * torch.tensor(data.info.std) + torch.tensor(data.info.mean)
    expected = card.preprocess((255 * pixels).round().to(torch.uint8))
    assert found.shape == (9, *SHAPE) and torch.equal(labels, expected_labels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    square = dataclasses.replace(
        card, input_shape=(1, 9, 9), preprocessing=Preprocessing((0.4,), (0.2,), centre_share=0.6)
    )
    ((found, _),) = card_batches(square, data, "test", limit=9)
    expected = square.preprocess((255 * pixels).round().to(torch.uint8))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_accuracy_is_that_of_the_module(bundle: Path) -> None:
    data, module = random_images(1, 20), two_branches(seed=1)
    expected = logits_top1(two_branches(), card_batches(two_branches_card(), data, "test"))
    assert 0 < expected < 1
    assert file_top1(load_bundle(bundle), "pt2", data) == expected
    assert file_top1(load_bundle(bundle, network=module), "weights", data) == expected


def test_images_that_do_not_fit_the_card_are_named_at_once() -> None:
    data = random_images(3, 8, num_classes=7)
    with pytest.raises(UserError) as caught:
        card_batches(two_branches_card(), data, "test")
    first, second = str(caught.value).splitlines()
    assert first == "two branches takes 1 channels; made_up has 3."
    assert second == "two branches has 4 classes; made_up has 7."
    data.info = dataclasses.replace(data.info, centre_share=0.875)
    with pytest.raises(UserError, match=r"takes the centred 1 of an image; made_up keeps 0\.875"):
        card_batches(two_branches_card(), data, "test")


# -- a network of torchvision ------------------------------------------------------------------------


def resnet(num_classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.resnet18(num_classes=num_classes)
    return network.eval()


def resnet_card() -> ModelCard:
    preprocessing = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return ModelCard(
        name="resnet18", input_shape=(3, 32, 32), preprocessing=preprocessing, class_names=CLASSES
    )


@pytest.mark.slow
@torch.no_grad()
def test_resnet18_of_torchvision_goes_all_the_way(tmp_path: Path) -> None:
    data, network = random_images(3, 40), resnet()
    recalibrate_batchnorm(network, [batch for batch, _ in card_batches(resnet_card(), data, "train")])
    formats = ["pt2", *ENGINE_FORMATS]
    report = export_bundle(network, resnet_card(), tmp_path / "resnet18", formats)
    assert list(report.files) == ["weights", *formats]
    assert report.files["weights"].max_difference == 0.0
    loaded = load_bundle(report.path, network=torchvision.models.resnet18(num_classes=4))
    batch = images(3, (3, 32, 32))
    assert torch.equal(loaded.network(batch), network(batch))
    accuracy = logits_top1(network, card_batches(resnet_card(), data, "test"))
    for name in formats:
        found = load_file(load_bundle(report.path), name)(batch)
        torch.testing.assert_close(found, network(batch), rtol=1e-3, atol=1e-4)
        assert file_top1(loaded, name, data) == pytest.approx(accuracy, abs=0.04)
        assert min(run_fresh(report.path, name, FreshRunSettings(runs=2, warmup_runs=1)).runs_ms) > 0
    with pytest.raises(UserError, match=r"weights for this module, .*\n.*missing: layer.* and \d+ more"):
        load_bundle(report.path, network=torchvision.models.resnet34(num_classes=4))
    with pytest.raises(UserError, match=r"fc\.bias has shape \[4\], expected \[5\]"):
        load_bundle(report.path, network=resnet(num_classes=5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINE_FORMATS)
@torch.no_grad()
def test_int8_of_a_module(name: str, tmp_path: Path) -> None:
    if name == "openvino":
        pytest.importorskip("nncf")
    samples = card_samples(two_branches_card(), random_images(1, 20), 60)
    assert len(samples.calibration) == 60 and samples.calibration[0].shape == (1, *SHAPE)
    target = TargetPrecision("int8", samples)
    report = export_bundle(two_branches(), two_branches_card(), tmp_path / "b", [name], target=target)
    small = report.files[f"{name}_int8"]
    assert small.precision == "int8" and small.kept_layers == ()
    assert small.validation_metric is not None and small.fp32_validation_metric is not None
    assert abs(small.validation_metric.value - small.fp32_validation_metric.value) < 0.2
    found = load_file(load_bundle(report.path), f"{name}_int8")(images(3))
    assert 0 < float((found - two_branches()(images(3))).abs().max()) < 0.1
    target = TargetPrecision("int8", samples, MixedPrecisionSettings((0,)))
    with pytest.raises(UserError, match=r"keep_layers is \(0,\).*not a chain of layers.*=auto or none"):
        export_bundle(two_branches(), two_branches_card(), tmp_path / "c", [name], target=target)


class Sensitive(nn.Module):
    """Two branches; in one, a channel that no logit reads is ten thousand times as large as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.plain = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 6, 3)
        self.wide_head, self.plain_head = nn.Linear(6, 4), nn.Linear(6, 4)
        with torch.no_grad():
            self.wide.weight[0] *= 1e4
            self.wide_head.weight[:, 0] = 0
            self.wide_head.weight *= 10

    def forward(self, images: Tensor) -> Tensor:
        wide = self.wide_head(self.wide(images).relu().mean((2, 3)))
        output: Tensor = wide + self.plain_head(self.plain(images).relu().mean((2, 3)))
        return output


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINE_FORMATS)
@torch.no_grad()
def test_operators_stay_in_floating_point_where_the_accuracy_needs_it(name: str, tmp_path: Path) -> None:
    if name == "openvino":
        pytest.importorskip("nncf")
    torch.manual_seed(0)
    network, inputs = Sensitive().eval(), images(200)
    network.wide_head.bias.sub_(network(inputs).mean(0))
    batches = [(inputs, network(inputs).argmax(1))]
    samples = Samples(single_images([inputs], 50), lambda: batches)
    files, values = {}, {}
    for keep in ("none", "auto"):
        target = TargetPrecision("int8", samples, MixedPrecisionSettings(keep, 10.0))
        report = export_bundle(network, two_branches_card(), tmp_path / keep, [name], target=target)
        files[keep] = report.files[f"{name}_int8"]
        top1 = logits_top1(load_file(load_bundle(report.path), f"{name}_int8"), batches)
        found = files[keep].validation_metric
        assert found is not None and found.value == top1
        values[keep] = found.value
    assert values["none"] < 0.8 and files["none"].kept_text == ""
    kept = files["auto"].kept_operators
    assert values["auto"] > 0.89 and 1 <= len(kept) <= 2
    assert files["auto"].kept_layers == () and load_bundle(report.path).files == report.files
    assert f"Operators {', '.join(map(str, kept))} are in floating" in (report.path / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif("onnx" not in ENGINE_FORMATS, reason="the extra onnx is not installed")
def test_the_example_of_the_guide_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (root / "docs" / "guide.md").read_text().split("## Bundles")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    with torch.no_grad():
        expected = names["network"].eval()(images(2, (3, 64, 64)))
        assert torch.equal(names["same"](images(2, (3, 64, 64))), expected)
        found = names["logits"](images(2, (3, 64, 64)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


# -- mistakes --------------------------------------------------------------------------------------


def test_without_a_module_the_error_says_what_to_do(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    message = r"architecture of 'two branches' is not in the bundle .*network=module.*its files: pt2\."
    with pytest.raises(UserError, match=message):
        _ = loaded.network
    with pytest.raises(UserError, match=message):
        load_file(loaded, "weights")
    with pytest.raises(UserError, match="'two branches' in .* is not a sub-network of a space"):
        _ = loaded.subnet


def test_a_module_of_another_architecture_is_refused_and_left_alone(bundle: Path) -> None:
    other = two_branches(width=7)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(
        UserError, match=r"weights for this module, .*\n.*left\.weight has shape \[6, 1, 3, 3\], exp"
    ):
        load_bundle(bundle, network=other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    with pytest.raises(UserError, match=r"left\.bias is torch\.float32, expected torch\.float64"):
        load_bundle(bundle, network=two_branches().double())
    with torch.device("meta"), pytest.raises(UserError, match=r"without memory .*to_empty"):
        load_bundle(bundle, network=TwoBranches())


def test_tensors_that_are_tied_otherwise_are_named(tmp_path: Path) -> None:
    apart = two_branches()
    apart.mix_again = copy.deepcopy(apart.mix)
    with torch.no_grad():
        apart.mix_again.weight.add_(1)
    export_bundle(apart, two_branches_card(), tmp_path / "b", ())
    with pytest.raises(UserError, match=r"shares memory between tensors that differ .*: mix\.weight\. Pass"):
        load_bundle(tmp_path / "b", network=two_branches())


class ExtraState(TwoBranches):
    def get_extra_state(self) -> dict[str, int]:
        return {"epoch": 3}


class Choosing(TwoBranches):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else -images)


class Pair(TwoBranches):
    def forward(self, images: Tensor) -> Tensor:
        return (super().forward(images), images)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ExtraState(), "values that are not tensors: _extra_state"),
        (Choosing(), "PyTorch cannot make a graph of the network for any number of images"),
        (Pair(), "returns tuple for 2 images"),
        (TwoBranches(channels=2), r"cannot take images of shape \(1, 10, 14\), the card's input_shape"),
        (TwoBranches(num_classes=3), r"returns \(2, 3\) for 2 images; the card has 4 class names"),
        (nn.Flatten(0), r"returns \(280,\) for 2 images; expected a tensor \(2, \.\.\.\)"),
    ],
)
def test_modules_that_do_not_become_a_bundle(network: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        export_bundle(network, two_branches_card(), tmp_path / "b", ["pt2"])
    assert list(tmp_path.iterdir()) == []


def test_a_card_of_a_subnet_wants_its_static_network(bundle: Path, tmp_path: Path) -> None:
    earlier = Path(__file__).parents[2] / "data" / "earlier_run" / "before" / "bundles" / "my_cpu-0.8ms"
    card = load_bundle(earlier).card
    with pytest.raises(UserError, match="does not have the layers of the sub-network 16px"):
        export_bundle(two_branches(), card, tmp_path / "b", ())


@torch.no_grad()
def test_other_tasks_need_no_class_names(tmp_path: Path) -> None:
    card = dataclasses.replace(two_branches_card(), task="embedding", class_names=(), expected_metric=None)
    path = export_bundle(two_branches(), card, tmp_path / "b", ()).path
    assert "largest logit" not in (path / "README.md").read_text()
    loaded = load_bundle(path, network=two_branches())
    assert loaded.card == card
    with pytest.raises(UserError, match="two branches is a network for embedding; .* is for classification"):
        file_top1(loaded, "weights", random_images(1, 20))


def test_the_exported_numbers_do_not_depend_on_the_layout(tmp_path: Path) -> None:
    network = two_branches().to(memory_format=torch.channels_last)
    path = export_bundle(network, two_branches_card(), tmp_path / "b", ()).path
    state = load_bundle(path, network=two_branches(seed=3)).network.state_dict()
    for name, value in two_branches().state_dict().items():
        np.testing.assert_array_equal(state[name].numpy(), value.numpy())


@pytest.mark.slow
def test_a_torchvision_network_goes_the_whole_way(tmp_path: Path) -> None:
    """Exported, loaded, fine-tuned, recalibrated, evaluated and exported again; it learns."""
    torch.manual_seed(0)
    data = make_data()
    preprocessing = Preprocessing(data.info.mean * 3, data.info.std * 3)
    card = ModelCard(
        name="resnet18",
        input_shape=(3, 16, 16),
        preprocessing=preprocessing,
        class_names=data.info.class_names,
    )
    export_bundle(torchvision.models.resnet18(num_classes=3), card, tmp_path / "first", ())

    class Grey(nn.Module):
        """Grey images for a network of colours."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            outputs: Tensor = self.network(images.expand(-1, 3, -1, -1))
            return outputs

    network = load_bundle(tmp_path / "first", network=torchvision.models.resnet18(num_classes=3)).network
    grey, cpu = Grey(network), torch.device("cpu")
    batches = [(resize(pixels, 16), labels) for pixels, labels in data.batches("test", 30, cpu)]
    settings = FinetuneSettings(
        epochs=4,
        lr=0.02,
        batch_size=30,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.0,
        distillation_ratio=0.0,
        seed=0,
    )
    fit(grey, data, settings, resolution=16)
    training = (pixels for pixels, _ in data.batches("train", 50, cpu))
    recalibrate_batchnorm(grey, (resize(pixels, 16) for pixels in training))
    accuracy = score(grey, batches)
    assert accuracy > 0.6
    tuned = dataclasses.replace(card, expected_metric=MetricValue("top1", accuracy))
    export_bundle(network, tuned, tmp_path / "second", ["pt2"])
    again = load_bundle(tmp_path / "second")
    assert again.card.expected_metric is not None and again.card.expected_metric.value == accuracy
    run = load_file(again, "pt2")
    assert logits_top1(lambda pixels: run(pixels.expand(-1, 3, -1, -1)), batches) == accuracy
