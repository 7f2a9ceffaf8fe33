"""Tests of ofa.export and ofa.export.bundle: what is written runs, and nothing is half-written."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.util
import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ofa.export.formats
import ofa.export.write
from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue
from ofa.data.base import resize
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import DataInfo
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.formats import formats_of_engines
from ofa.export.record import ExportedFile, FilePart
from ofa.export.write import export_bundle
from ofa.modules.static import StaticNetwork
from ofa.runtimes.base import missing_packages
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra onnx is not installed",
)

INFO = DataInfo("toy", 2, ("ant", "bee", "cat", "dog", "eel"), (0.5, 0.25), (0.2, 0.4))


@pytest.fixture(scope="module")
def card(micro_space: StagedSpace) -> ModelCard:
    return subnet_card(
        micro_space,
        micro_space.largest,
        INFO,
        expected_metric=MetricValue("top1", 0.75),
        expected_latency_ms={"my_cpu": 1.5},
        provenance={"run": "test", "phases": ["a", "b"]},
    )


@pytest.fixture(scope="module")
def network(card: ModelCard, make_supernet: Callable[[StagedSpace, int], Supernet]) -> StaticNetwork:
    assert card.subnet is not None
    return make_supernet(card.subnet.family, 0).extract(card.subnet.config)


@pytest.fixture(scope="module")
def bundle(network: StaticNetwork, card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without ONNX; tests that change it take a copy."""
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    export_bundle(network, card, path, formats=("pt2",))
    return path


@pytest.fixture
def changed(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    path = tmp_path / "copy"
    path.mkdir()
    for file in bundle.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def images_for(card: ModelCard, count: int) -> torch.Tensor:
    return torch.randn(count, *card.input_shape, generator=torch.Generator().manual_seed(99))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = bundle / "subnet.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


@torch.no_grad()
def test_bundle_gives_the_network_and_its_description_back(
    bundle: Path, network: StaticNetwork, card: ModelCard
) -> None:
    loaded = load_bundle(bundle)
    images = images_for(card, 4)
    assert torch.equal(load_bundle(str(bundle)).network(images), network(images))
    assert not any(module.training for module in loaded.network.modules())
    assert all(parameter.requires_grad for parameter in loaded.network.parameters())
    assert loaded.card == card and loaded.path == bundle
    assert set(loaded.files) == {"weights", "pt2"} and loaded.files["weights"].max_difference == 0.0
    assert loaded.versions["torch"] and loaded.versions["python"] == sys.version.split()[0]
    assert names(bundle) == ["README.md", "model.pt2", "subnet.json", "weights.safetensors"]
    assert names(bundle.parent) == ["bundle"]


def test_description_is_plain_json_with_everything_a_user_needs(bundle: Path, card: ModelCard) -> None:
    values = json.loads((bundle / "subnet.json").read_text())
    assert values["schema_version"] == 2 and card.subnet is not None
    subnet, config = values["subnet"], card.subnet.config
    assert subnet["config"] == config.to_dict() and subnet["id"] == config.id
    assert subnet["space"]["name"] == "micro" and subnet["fingerprint"] == card.subnet.space.fingerprint
    assert (values["name"], values["task"]) == (f"micro-{config.id}", "classification")
    assert values["input_shape"] == [2, 12, 12]
    assert values["preprocessing"] == {
        "mean": [0.5, 0.25],
        "std": [0.2, 0.4],
        "pixel_scale": 1 / 255,
        "resize": "bilinear, antialiased",
        "centre_share": 1.0,
    }
    assert values["class_names"] == ["ant", "bee", "cat", "dog", "eel"]
    assert values["expected_metric"] == {"name": "top1", "value": 0.75}
    assert values["expected_latency_ms"] == {"my_cpu": 1.5}
    assert values["provenance"] == {"run": "test", "phases": ["a", "b"]}
    for file in values["files"].values():
        assert file["bytes"] == (bundle / file["file"]).stat().st_size


@torch.no_grad()
def test_pt2_file_runs_at_any_batch_size(bundle: Path, network: StaticNetwork, card: ModelCard) -> None:
    program = torch.export.load(load_bundle(bundle).file("pt2")).module()
    for count in (1, 2, 7):
        images = images_for(card, count)
        torch.testing.assert_close(program(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_onnx
@torch.no_grad()
def test_onnx_file_runs_at_any_batch_size_and_export_is_quiet(
    network: StaticNetwork, card: ModelCard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    level = logging.getLogger("torch").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = export_bundle(network, card, tmp_path / "bundle", formats=("onnx", "pt2"))
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caught) == ("", "", [])
    assert logging.getLogger("torch").level == level
    assert names(report.path) == [
        "README.md",
        "model.onnx",
        "model.pt2",
        "subnet.json",
        "weights.safetensors",
    ]
    assert report.files == load_bundle(report.path).files
    assert set(report.files) == {"weights", "onnx", "pt2"}
    session = onnxruntime.InferenceSession(str(load_bundle(report.path).file("onnx")))
    (described,) = session.get_inputs()
    assert (described.name, described.shape) == ("images", ["batch", 2, 12, 12])
    for count in (1, 2, 7):
        images = images_for(card, count)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), network(images), rtol=1e-4, atol=1e-5)


def test_export_leaves_the_network_alone_and_reports_progress(
    network: StaticNetwork, card: ModelCard, tmp_path: Path
) -> None:
    mine = copy.deepcopy(network).to(memory_format=torch.channels_last).train()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    seen: list[tuple[int, int, str]] = []
    export_bundle(mine, card, tmp_path / "bundle", (), progress=lambda *step: seen.append(step))
    assert all(module.training for module in mine.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    assert all(parameter.requires_grad for parameter in mine.parameters())
    assert seen == [(0, 1, "weights"), (1, 1, "")]
    images = images_for(card, 2)
    torch.testing.assert_close(load_bundle(tmp_path / "bundle").network(images), mine.eval()(images))


# -- whole or absent -----------------------------------------------------------------------------


def test_a_complete_bundle_replaces_the_old_one(
    changed: Path, network: StaticNetwork, card: ModelCard
) -> None:
    (changed / "stale.txt").write_text("from before")
    other = dataclasses.replace(card, expected_metric=MetricValue("top1", 0.5))
    export_bundle(network, other, changed, ())
    assert load_bundle(changed).card == other
    assert names(changed) == ["README.md", "subnet.json", "weights.safetensors"]
    assert names(changed.parent) == ["copy"]


def fail_with(error: BaseException) -> Callable[..., dict[str, bytes]]:
    def serialise(source: object) -> dict[str, bytes]:
        raise error

    return serialise


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")]
)
def test_a_failure_midway_keeps_the_old_bundle_and_leaves_nothing_else(
    error: BaseException,
    changed: Path,
    network: StaticNetwork,
    card: ModelCard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = dataclasses.replace(ofa.export.formats.FORMATS["pt2"], serialise=fail_with(error))
    monkeypatch.setitem(ofa.export.formats.FORMATS, "pt2", broken)
    expected = UserError if isinstance(error, OSError) else type(error)
    for path in (changed, changed.parent / "new"):
        with pytest.raises(expected) as caught:
            export_bundle(
                network, dataclasses.replace(card, expected_metric=MetricValue("top1", 0.1)), path, ("pt2",)
            )
        if expected is UserError:
            assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    assert load_bundle(changed).card == card
    assert names(changed.parent) == ["copy"]


def test_a_file_that_computes_something_else_is_an_error(
    network: StaticNetwork, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = dataclasses.replace(
        ofa.export.formats.FORMATS["pt2"],
        serialise=lambda source: {"model.pt2": b"x"},
        load=lambda folder: lambda images: 1.001 * network(images),
    )
    monkeypatch.setitem(ofa.export.formats.FORMATS, "pt2", broken)
    with pytest.raises(UserError, match=r"exported pt2 file's logits differ .* batch size 1; at most"):
        export_bundle(network, card, tmp_path / "bundle", ("pt2",))
    assert names(tmp_path) == []
    report = export_bundle(network, card, tmp_path / "bundle", ("pt2",), tolerance=2e-3)
    with torch.no_grad():
        assert report.files["pt2"].max_difference > 0


def test_only_bundles_are_replaced(network: StaticNetwork, card: ModelCard, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    export_bundle(network, card, photos, ())
    (photos / "subnet.json").unlink()
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (photos, file):
        with pytest.raises(UserError, match="exists and is not a bundle; choose another path or remove it"):
            export_bundle(network, card, path, ())
    assert names(tmp_path) == ["file", "photos"] and file.read_text() == "mine"
    with pytest.raises(UserError, match="Could not write the bundle"):
        export_bundle(network, card, file / "below", ())


def test_loaded_weights_have_memory_of_their_own(bundle: Path) -> None:
    """Slices of one buffer lie at odd addresses, which makes convolutions slower."""
    tensors = list(load_bundle(bundle).network.parameters())
    assert all(t.storage_offset() == 0 and t.untyped_storage().nbytes() == t.nbytes for t in tensors)
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)


# -- mistakes ------------------------------------------------------------------------------------


def test_unknown_format_and_missing_extra_are_user_errors(
    network: StaticNetwork, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match="Unknown export format 'onx'; known: executorch, ncnn, onnx, openvino, pt2"
    ):
        export_bundle(network, card, tmp_path / "bundle", ("onx",))
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=r"Export to onnx needs onnx and onnxruntime;.*'\.\[onnx\]'.*leave onnx"
    ):
        export_bundle(network, card, tmp_path / "bundle")
    assert names(tmp_path) == []


def test_network_of_another_config_is_a_user_error(
    network: StaticNetwork, card: ModelCard, tmp_path: Path
) -> None:
    assert card.subnet is not None
    space = card.subnet.space
    other = subnet_card(space, space.smallest, INFO)
    with pytest.raises(UserError, match="does not have the layers of the sub-network 8px"):
        export_bundle(network, other, tmp_path / "bundle", ())


def test_a_card_reports_all_misfits_at_once(card: ModelCard) -> None:
    assert card.subnet is not None
    config = dataclasses.replace(card.subnet.config, resolution=16)
    wrong = MetricValue("top1", 75.0)
    with pytest.raises(UserError) as caught:
        info = DataInfo("toy", 1, ("ant",), (0.5,), (1.0,))
        subnet_card(card.subnet.space, config, info, expected_metric=wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "resolution is 16" in lines[0] and "1 class names; space 'micro' has 5" in lines[1]
    assert "1 channels; the network takes 2" in lines[2] and "expected top1 is 75.0" in lines[3]


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        ((0.5,), (0.5, 0.5), "mean has 1 values and std 2"),
        ((), (), "mean has 0 values"),
        ((0.5,), (0.0,), "std above 0"),
        ((float("nan"),), (1.0,), "expected numbers"),
    ],
)
def test_wrong_preprocessing_is_a_user_error(
    mean: tuple[float, ...], std: tuple[float, ...], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        Preprocessing(mean, std)


def test_missing_files_are_user_errors(changed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No bundle at .*subnet\.json") as caught:
        load_bundle(tmp_path / "nothing")
    assert caught.value.stage == "export"
    (changed / "model.pt2").unlink()
    loaded = load_bundle(changed)
    with pytest.raises(UserError, match=r"model\.pt2 is missing"):
        loaded.file("pt2")
    with pytest.raises(UserError, match="has no format 'onnx'; it has: weights, pt2"):
        loaded.file("onnx")
    (changed / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"No weights at .*weights\.safetensors"):
        load_bundle(changed)


@pytest.mark.parametrize(
    ("size", "problem"), [(0, "empty"), (5, "no file of weights"), (1000, "truncated"), (-1, "truncated")]
)
def test_truncated_weights_are_a_user_error(changed: Path, size: int, problem: str) -> None:
    file = changed / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"weights .*weights\.safetensors is {problem}\."):
        load_bundle(changed)


def test_changed_weights_are_a_user_error(changed: Path) -> None:
    file = changed / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match="differ from the exported ones"):
        load_bundle(changed)


def test_weights_of_another_network_are_a_user_error(
    changed: Path, card: ModelCard, make_supernet: Callable[[StagedSpace, int], Supernet], tmp_path: Path
) -> None:
    assert card.subnet is not None
    space = card.subnet.family
    smallest = subnet_card(space, space.smallest, INFO)
    network = make_supernet(space, 0).extract(space.smallest)
    export_bundle(network, smallest, tmp_path / "smallest", ())
    (changed / "weights.safetensors").write_bytes((tmp_path / "smallest/weights.safetensors").read_bytes())
    with pytest.raises(
        UserError, match=r"(?s)weights for this sub-network, .* has shape \[24, .* and \d+ more"
    ):
        load_bundle(changed)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v.update(schema_version=3), "schema version 3; this version reads 1 and 2"),
        (lambda v: v.pop("schema_version"), "schema version None"),
        (lambda v: v["subnet"]["space"].update(num_classes=6), "has fingerprint .* is recorded"),
        (
            lambda v: v["subnet"]["config"].update(resolution=9),
            r"subnet\.json: resolution is 9; space 'micro'",
        ),
        (lambda v: v["subnet"]["config"].update(stages=3), r"subnet\.json: "),
        (lambda v: v["class_names"].pop(), "4 class names"),
        (lambda v: v["preprocessing"].update(resize="nearest"), "resize is 'nearest'; expected 'bilinear"),
        (lambda v: v["preprocessing"].update(std=[1.0]), "mean has 2 values and std 1"),
        (lambda v: v.pop("provenance"), "provenance is missing"),
        (lambda v: v["files"].pop("weights"), "lists no weights"),
    ],
)
def test_changed_descriptions_are_user_errors(
    changed: Path, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    edit(changed, change)
    with pytest.raises(UserError, match=text):
        load_bundle(changed)


def test_truncated_description_is_a_user_error(changed: Path) -> None:
    file = changed / "subnet.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(UserError, match=r"subnet\.json is truncated"):
        load_bundle(changed)


# -- formats of other engines ----------------------------------------------------------------------

OTHERS = {
    "openvino": ["model.bin", "model.xml"],
    "ncnn": ["model.ncnn.bin", "model.ncnn.param"],
    "executorch": ["model.pte"],
}


def installed_format(name: str) -> ofa.export.formats.Format:
    kind = ofa.export.formats.FORMATS[name]
    missing = missing_packages(kind.packages)
    if missing:
        pytest.skip(f"the extra {kind.extra} is not installed ({', '.join(missing)})")
    return kind


@pytest.mark.parametrize("name", OTHERS)
@torch.no_grad()
def test_files_of_other_engines_run_and_are_all_recorded(
    name: str,
    network: StaticNetwork,
    card: ModelCard,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kind = installed_format(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = export_bundle(network, card, tmp_path / "bundle", formats=(name,))
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(warning.message) for warning in caught]) == ("", "", [])
    loaded = load_bundle(report.path)
    exported = loaded.files[name]
    assert report.files == loaded.files and 0 < exported.max_difference < 1e-3
    parts: list[ExportedFile | FilePart] = [exported, *exported.parts]
    assert sorted(part.file for part in parts) == OTHERS[name]
    for part in parts:
        content = (report.path / part.file).read_bytes()
        assert (part.bytes, part.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert loaded.file(name) == report.path / exported.file
    assert exported.batch_size == (None if name == "openvino" else 1)
    logits = kind.load(report.path)
    for count in (1, 2, 7):
        images = images_for(card, count)
        torch.testing.assert_close(logits(images), network(images), rtol=1e-3, atol=1e-4)


def test_all_formats_fit_into_one_bundle(network: StaticNetwork, card: ModelCard, tmp_path: Path) -> None:
    formats = [
        name for name, kind in ofa.export.formats.FORMATS.items() if not missing_packages(kind.packages)
    ]
    report = export_bundle(network, card, tmp_path / "bundle", formats)
    every: list[ExportedFile | FilePart] = []
    for file in report.files.values():
        every += [file, *file.parts]
    files = [part.file for part in every]
    assert len(set(files)) == len(files) and set(files) < set(names(report.path))


@pytest.fixture
def two_files(network: StaticNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the format pt2 one of two files that takes single images."""
    kind = dataclasses.replace(
        ofa.export.formats.FORMATS["pt2"],
        serialise=lambda source: {"graph.txt": b"graph", "values.bin": b"\x00\x01"},
        load=lambda folder: lambda images: network(images),
        batch_size=1,
    )
    monkeypatch.setitem(ofa.export.formats.FORMATS, "pt2", kind)


@pytest.mark.usefixtures("two_files")
def test_a_format_of_several_files_is_recorded_and_checked_as_a_whole(
    network: StaticNetwork, card: ModelCard, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    export_bundle(network, card, path, ("pt2",))
    recorded = json.loads((path / "subnet.json").read_text())["files"]["pt2"]
    expected = {
        "file": "graph.txt",
        "sha256": hashlib.sha256(b"graph").hexdigest(),
        "bytes": 5,
        "max_difference": 0.0,
        "parts": [{"file": "values.bin", "sha256": hashlib.sha256(b"\x00\x01").hexdigest(), "bytes": 2}],
        "batch_size": 1,
    }
    assert recorded == recorded | expected
    assert load_bundle(path).files["pt2"].total_bytes == 7
    assert load_bundle(path).file("pt2") == path / "graph.txt"
    for name, content in (("graph.txt", b"graph"), ("values.bin", b"\x00\x01")):
        (path / name).write_bytes(content + b"x")
        with pytest.raises(
            UserError, match=rf"{name} differs from the file that was exported .*export it again"
        ):
            load_bundle(path).file("pt2")
        (path / name).unlink()
        with pytest.raises(UserError, match=rf"{name} is missing from the bundle"):
            load_bundle(path).file("pt2")
        (path / name).write_bytes(content)


def test_descriptions_from_before_formats_had_parts_are_read(changed: Path) -> None:
    def forget(values: dict[str, Any]) -> None:
        for file in values["files"].values():
            del file["parts"], file["batch_size"]

    edit(changed, forget)
    assert load_bundle(changed).file("pt2") == changed / "model.pt2"


def test_a_package_that_is_not_there_names_its_extra(
    network: StaticNetwork, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in OTHERS:
        with pytest.raises(UserError, match=rf"Export to {name} needs .*'\.\[{name}\]', or leave {name} out"):
            export_bundle(network, card, tmp_path / "bundle", (name,))
    assert names(tmp_path) == []


# -- preprocessing -------------------------------------------------------------------------------


def test_preprocessing_by_hand() -> None:
    preprocessing = Preprocessing((0.5, 0.25), (0.2, 0.5))
    pixels = torch.tensor([[[[255]], [[51]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[(1.0 - 0.5) / 0.2]], [[(0.2 - 0.25) / 0.5]]]])
    torch.testing.assert_close(preprocessing.apply(pixels, 1), expected)
    with pytest.raises(UserError, match=r"shape \(1, 3, 4, 4\); expected \(n, 2, height, width\)"):
        preprocessing.apply(torch.zeros(1, 3, 4, 4), 4)


def test_preprocessing_is_what_training_does(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    images = torch.randint(0, 256, (3, 2, 20, 30), dtype=torch.uint8)
    scaled = (images / 255 - torch.tensor([0.5, 0.25]).view(2, 1, 1)) / torch.tensor([0.2, 0.4]).view(2, 1, 1)
    torch.testing.assert_close(loaded.preprocess(images), resize(scaled, 12))
    constant = torch.full((1, 2, 24, 24), 51, dtype=torch.uint8)
    expected = torch.tensor([(0.2 - 0.5) / 0.2, (0.2 - 0.25) / 0.4]).view(1, 2, 1, 1).expand(1, 2, 12, 12)
    torch.testing.assert_close(loaded.preprocess(constant), expected)
    assert loaded.network(loaded.preprocess(images)).shape == (3, 5)


def test_each_engine_has_its_format_and_others_that_of_pytorch() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert formats_of_engines(["onnx_runtime", "pytorch", "torch_compile", "onnx_runtime"]) == ["onnx", "pt2"]
