"""The import commands: a checkpoint, tables and a predictor of others, and later stages on top of them."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_latency_table import export_latency_table
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from import_checkpoint import import_checkpoint
from import_latency_table import import_latency_table
from import_network import import_network
from import_predictor import import_predictor
from PIL import Image
from published_names import mobilenet_v3_name
from randomised import randomise
from search_for_device import search_for_device
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.export.bundle import load_bundle
from ofa.modules.static import StaticNetwork
from ofa.published.names import published_names
from ofa.published.network import read_network
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

TINY = ("space=mobilenet_v3_tiny", "data=digits")
WIDE = ("space=mobilenet_v3", "space.width_multiplier=1.2")


@pytest.fixture
def checkpoint(
    tiny_space: StagedSpace, make_supernet: Callable[[StagedSpace, int], Supernet], tmp_path: Path
) -> Path:
    supernet = make_supernet(tiny_space, 0)
    names = {name: mobilenet_v3_name(name, len(supernet.layers)) for name in supernet.state_dict()}
    torch.save({names[name]: tensor for name, tensor in supernet.state_dict().items()}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes that differ in brightness: 6 training and 3 test images of each."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, num_images in (("train", 6), ("val", 3)):
        for label, name in enumerate(("bright", "dark", "middle")):
            (folder / split / name).mkdir(parents=True)
            for number in range(num_images):
                pixels = rng.integers(0, 80, (40, 48, 3)) + 80 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{number}.png")
    return folder


def test_later_stages_go_on_from_an_imported_supernet(checkpoint: Path, tmp_path: Path) -> None:
    common = (f"runs_dir={tmp_path}", "run_name=mine")
    run = RunDirectory(str(tmp_path), "mine")
    import_checkpoint.run(*common, f"file={checkpoint}", *TINY)
    # An import that was killed before its last file begins again.
    run.supernet.with_suffix(".json").unlink()
    import_checkpoint.run(*common, f"file={checkpoint}", *TINY)
    supernet, info = load_supernet(run.supernet)
    assert info.provenance["imported"]["file"] == "tiny.pth"
    state = torch.load(checkpoint, weights_only=True)
    assert torch.equal(supernet.state_dict()["layers.0.layer.conv.weight"], state["first_conv.conv.weight"])
    collect_accuracy.run(*common, "count=2", "calibration_images=30", "validation_images=30")
    path = export_subnet.run(*common, "subnet=smallest", "calibration_images=30", "formats=[]")
    assert load_bundle(path).subnet.space == supernet.space
    import_checkpoint.run(*common, f"file={checkpoint}", *TINY)
    assert load_supernet(run.supernet)[1].sha256 == info.sha256
    checkpoint.rename(checkpoint.with_name("other.pth"))
    with pytest.raises(UserError, match="holds a run already"):
        import_checkpoint.run(*common, f"file={checkpoint.with_name('other.pth')}", *TINY)
    with pytest.raises(UserError, match="holds a run of a different configuration"):
        train_supernet.run(*common)


def test_a_supernet_is_imported_without_images_and_started_from(
    tiny_space: StagedSpace,
    make_supernet: Callable[[StagedSpace, int], Supernet],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    supernet = make_supernet(dataclasses.replace(tiny_space, num_classes=37, in_channels=3), 0)
    names = {name: mobilenet_v3_name(name, len(supernet.layers)) for name in supernet.state_dict()}
    state = {f"module.{names[name]}": tensor for name, tensor in supernet.state_dict().items()}
    torch.save({"best_acc": np.float64(0.7), "state_dict": state}, tmp_path / "theirs.pth")
    common = (f"runs_dir={tmp_path}", "run_name=theirs")
    path = import_checkpoint.run(*common, f"file={tmp_path / 'theirs.pth'}", "space=mobilenet_v3_tiny")
    assert load_supernet(path)[1].space.num_classes == 37
    assert "37 classes" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"'theirs' has no folder of images .* Give data_root=FOLDER"):
        collect_accuracy.run(*common, "count=2")
    with pytest.raises(UserError, match="^data_root /nowhere is not a folder"):
        collect_accuracy.run(*common, "count=2", "data_root=/nowhere")
    few = ("training.validation_images=30", "training.calibration_images=30", "training.batch_size=300")
    once = ("phases=small_sandwich", "phases.sandwich.epochs=1", "phases.sandwich.warmup_epochs=0")
    train_supernet.run(f"runs_dir={tmp_path}", "run_name=mine", "init=theirs", *few, *once)
    start = load_supernet(tmp_path / "mine" / "supernet.pt")[1].provenance["start"]
    assert start["has_new_classifier"] and start["adapted_names"] == ["layers.0.layer.conv.weight"]


def test_images_of_other_classes_are_refused_with_both(
    checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    common = (f"runs_dir={tmp_path}", "run_name=mine")
    few = (f"data.root={photographs}", "data.validation_size=3", "data.workers=0")
    import_checkpoint.run(*common, f"file={checkpoint}", "space=mobilenet_v3_tiny", "data=image_folder", *few)
    with pytest.raises(UserError, match="the 3 classes bright, dark, middle; .* 1 channels and tells 10 cl"):
        collect_accuracy.run(*common, "count=2")


def test_a_checkpoint_of_another_space_makes_no_run(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing: "):
        import_checkpoint.run(f"runs_dir={tmp_path}", "run_name=mine", f"file={checkpoint}", "space=resnet50")
    assert not (tmp_path / "mine").exists()


def test_search_with_an_imported_table_and_predictor(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (f"runs_dir={tmp_path}", "run_name=note10", *WIDE)
    predictor = shared_data / "predictor" / "ofa_mbv3_acc_predictor.pth"
    import_predictor.run(*common, f"file={predictor}")
    files = {name: f"files=[{shared_data / 'latency' / name}]" for name in ("note10", "ultra96")}
    import_latency_table.run(*common, files["note10"], "device.name=note10")
    # The next step that is advised works as it stands.
    advice = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ofa search")
    )
    search_for_device.run(*shlex.split(advice)[3:], "search.generations=3", "name=advised")
    with pytest.raises(UserError, match="AvgPool2D-input:7x7x1152"):
        import_latency_table.run(*common, files["ultra96"], "device.name=ultra96")
    import_latency_table.run(*common, files["ultra96"], "device.name=ultra96", "missing_ms.AvgPool2D=0")
    note10 = ("device=imported", "device.name=note10", "search.generations=5")
    with pytest.raises(UserError, match=r"search with resolutions=\[160, 176, 192, 208, 224\]"):
        search_for_device.run(*common, *note10, "limits.latency_ms=30")
    other = f"{tmp_path}/note10/latency/ultra96.json"
    joint = (f"+more_tables.ultra96.table={other}", "+more_tables.ultra96.latency_ms=15")
    _, result = search_for_device.run(*common, *note10, "limits.latency_ms=35", "resolutions=[224]", *joint)
    assert result.best.values["latency_ms"] <= 35
    assert result.best.values["latency_ms on ultra96"] <= 15
    assert 0.77 < result.best.accuracy < 0.85
    exported = export_latency_table.run(*common, "device=imported", "device.name=note10")
    assert [path.name for path in exported] == [f"{r}_lookup_table.yaml" for r in range(160, 225, 16)]


def test_a_published_network_is_exported(shared_data: Path, tmp_path: Path) -> None:
    file, weights = network_file(shared_data, tmp_path)
    network = read_network(file)
    settings = (
        f"runs_dir={tmp_path}",
        f"net_config={file}",
        f"weights={weights}",
        "formats=[]",
    )
    path = import_network.run(*settings)
    bundle = load_bundle(path)
    assert bundle.subnet.config.resolution == 188
    assert isinstance(bundle.network, StaticNetwork)
    assert bundle.network.specs == network.specs
    assert json.loads((path / "subnet.json").read_text())["subnet"]["space"]["family"] == "proxyless_nas"
    with pytest.raises(UserError, match="its resolution is 188; the space has 128, 144"):
        import_network.run(*settings, "space=proxyless_nas")


def network_file(shared_data: Path, folder: Path) -> tuple[Path, Path]:
    """Return the description and made-up weights of a published network of 1,000 classes."""
    file = shared_data / "subnets" / "cpu_lat-15ms_top1-74.6_finetune-25" / "net.config"
    network = read_network(file)
    module = network.build()
    randomise(module, 0)
    names = published_names(network.specs, module.state_dict())
    torch.save({names[name]: module.state_dict()[name] for name in names}, folder / "weights.pth")
    return file, folder / "weights.pth"


def test_a_published_network_is_finetuned_to_the_classes_of_a_folder(
    shared_data: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, weights = network_file(shared_data, tmp_path)
    common = (f"runs_dir={tmp_path}", "threads=1")
    source = import_network.run(*common, f"net_config={file}", f"weights={weights}", "formats=[]")
    images = ("data=image_folder", f"data.root={photographs}", "data.validation_size=3", "data.workers=0")
    tuning = ("finetuning.epochs=1", "finetuning.batch_size=6", "formats=[]", "calibration_images=6")
    settings = (*common, f"bundle={source}", "data.image_size=40", *images, "run_name=mine", *tuning)
    path = finetune_subnet.run(*settings)
    out = capsys.readouterr().out
    assert "new: classifier (1000 → 3 classes)" in out and "no teacher" in out
    assert "1 epochs with lr 0.005 are little for a new classifier" in out
    assert "next: ofa evaluate run_name=mine" in out
    old, new = load_bundle(source), load_bundle(path)
    assert path.parent == tmp_path / "mine" / "bundles"
    assert new.card.class_names == ("bright", "dark", "middle")
    assert new.subnet.config == old.subnet.config and new.subnet.space.num_classes == 3
    start = new.card.provenance["start"]
    assert start["sha256"] == old.files["weights"].sha256
    assert all(".linear." in name for name in start["new_names"]) and len(start["new_names"]) == 2
    assert new.card.provenance["finetuned"]["distillation_ratio"] == 0.0
    assert new.card.provenance["published"] == old.card.provenance["published"]
    accuracy, _ = evaluate_subnet.run(*common, "run_name=mine", f"bundle={path.name}", "latency=false")
    assert 0 <= accuracy <= 1
    with pytest.raises(UserError, match="tells 1000 classes .* have 3 .*Fine-tune it"):
        evaluate_subnet.run(*common, "run_name=mine", f"bundle={source}", "latency=false")
    with pytest.raises(UserError, match="holds a run of other images: data.image_size was 40 and is 48"):
        finetune_subnet.run(*settings, "data.image_size=48", "name=other")


def test_finetuning_without_run_and_images_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No run 'none'.*needs no run: data=image_folder data.root=DIR"):
        finetune_subnet.run(f"runs_dir={tmp_path}", "run_name=none", "bundle=any")
