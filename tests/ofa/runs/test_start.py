"""Trainings that start from given weights: every source, every refusal, what is recorded, and resuming."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published_names import mobilenet_v3_name, proxyless_name, resnet_name
from torch import Tensor
from train_supernet import train_supernet

from ofa.common.errors import UserError
from ofa.data.settings import DataInfo
from ofa.export.card import subnet_card
from ofa.export.write import export_bundle
from ofa.runs.sources import find_source
from ofa.runs.start import start_from
from ofa.runs.supernet_file import load_supernet, save_supernet
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet, build_supernet

MakeSupernet = Callable[[StagedSpace, int], Supernet]
NAMES = {
    "micro_space": mobilenet_v3_name,
    "micro_proxyless": proxyless_name,
    "micro_resnet": resnet_name,
}
STAGES = (
    "[{channels: 8, stride: 2, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 3], "
    "activation: relu, squeeze_excite: false}]"
)
SMALL = (
    *("threads=1", "space.name=small", "space.resolutions=[8,12]", "space.stem_stride=1"),
    *("space.stem_channels=8", "space.head_channels=[16,24]", f"space.stages={STAGES}"),
    *("phases=small_sandwich", "phases.sandwich.epochs=1", "phases.sandwich.warmup_epochs=0"),
    *("training.batch_size=400", "training.validation_images=50", "training.calibration_images=100"),
)


@pytest.fixture(params=NAMES)
def source(request: pytest.FixtureRequest, make_supernet: MakeSupernet) -> tuple[Supernet, str]:
    """A supernet of each family, and the fixture that it was made from."""
    return make_supernet(request.getfixturevalue(request.param), 1), request.param


@pytest.fixture
def micro(micro_space: StagedSpace, make_supernet: MakeSupernet) -> Supernet:
    return make_supernet(micro_space, 1)


def other_classes(supernet: Supernet, num_classes: int = 3) -> Supernet:
    """Return a new supernet of other classes, resolutions and name."""
    space = dataclasses.replace(supernet.space, num_classes=num_classes, resolutions=(8, 16), name="mine")
    return build_supernet(space, seed=5)


def assert_all_taken_but_classifier(source: Supernet, target: Supernet) -> None:
    state = target.state_dict()
    for name, tensor in source.state_dict().items():
        assert ".linear." in name or torch.equal(tensor, state[name]), name


def published(supernet: Supernet, fixture: str) -> dict[str, Tensor]:
    rename, num_layers = NAMES[fixture], len(supernet.layers)
    return {rename(name, num_layers): tensor for name, tensor in supernet.state_dict().items()}


def test_a_run_is_found_by_name_folder_and_file(micro: Supernet, tmp_path: Path) -> None:
    save_supernet(tmp_path / "runs" / "a" / "supernet.pt", micro, {"class_names": list("abcde")})
    folder = tmp_path / "runs" / "a"
    for name in ("a", str(folder), str(folder / "supernet.pt")):
        target = other_classes(micro)
        record = start_from(target, name, class_names=("x", "y", "z"), runs_dir=str(tmp_path / "runs"))
        assert_all_taken_but_classifier(micro, target)
        assert (record.kind, record.source, record.has_new_classifier) == ("run", name, True)
        assert not record.is_one_network
        assert record.sha256 == find_source(name, str(tmp_path / "runs")).sha256
        assert record.num_taken == len(micro.state_dict()) - 2


@pytest.mark.parametrize(
    ("class_names", "is_new"), [(tuple("abcde"), False), (tuple("edcba"), True), (None, False)]
)
def test_a_classifier_is_taken_for_the_same_classes(
    class_names: tuple[str, ...] | None, is_new: bool, micro: Supernet, tmp_path: Path
) -> None:
    save_supernet(tmp_path / "supernet.pt", micro, {"class_names": list("abcde")})
    target = build_supernet(micro.space, 5)
    record = start_from(target, tmp_path, class_names=class_names)
    assert record.has_new_classifier == is_new
    assert (
        torch.equal(target.state_dict()[record_name(micro)], micro.state_dict()[record_name(micro)]) != is_new
    )


def record_name(supernet: Supernet) -> str:
    return f"layers.{len(supernet.layers) - 1}.linear.weight"


def test_a_published_file_of_any_class_count_and_family(source: tuple[Supernet, str], tmp_path: Path) -> None:
    supernet, fixture = source
    state = {f"module.{name}": tensor for name, tensor in published(supernet, fixture).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "theirs.pth")
    target = other_classes(supernet)
    record = start_from(target, tmp_path / "theirs.pth")
    assert_all_taken_but_classifier(supernet, target)
    assert record.kind == "file" and "classifier (5 → 3 classes)" in record.text


def test_a_thousand_published_classes_leave_all_else_bit_equal(
    load_space: Callable[[str], StagedSpace], make_supernet: MakeSupernet, tmp_path: Path
) -> None:
    space = dataclasses.replace(load_space("mobilenet_v3"), num_classes=1000)
    supernet = make_supernet(space, 4)
    torch.save(published(supernet, "micro_space"), tmp_path / "ofa_mbv3_d234_e346_k357_w1.0")
    target = build_supernet(dataclasses.replace(space, num_classes=5, resolutions=(64, 96)))
    record = start_from(target, tmp_path / "ofa_mbv3_d234_e346_k357_w1.0", class_names=tuple("abcde"))
    assert_all_taken_but_classifier(supernet, target)
    num_all = len(supernet.state_dict())
    assert record.text == f"{num_all - 2} of {num_all} tensors; new: classifier (1000 → 5 classes)"


@pytest.mark.parametrize("envelope", ["model", "ema", "supernet", "state"])
def test_a_state_dict_of_the_space(envelope: str, source: tuple[Supernet, str], tmp_path: Path) -> None:
    supernet, _ = source
    torch.save({envelope: {f"_orig_mod.{n}": t for n, t in supernet.state_dict().items()}}, tmp_path / "s.pt")
    target = other_classes(supernet)
    start_from(target, tmp_path / "s.pt")
    assert_all_taken_but_classifier(supernet, target)


def bundle_of(supernet: Supernet, config: SubnetConfig, path: Path) -> Path:
    info = DataInfo("made up", 2, tuple("abcde"), (0.5, 0.5), (0.2, 0.2))
    export_bundle(supernet.extract(config), subnet_card(supernet.space, config, info), path, [])
    return path


def test_a_bundle_of_the_largest_network(source: tuple[Supernet, str], tmp_path: Path) -> None:
    supernet, _ = source
    config = dataclasses.replace(supernet.space.largest, resolution=supernet.space.resolutions[0])
    path = bundle_of(supernet, config, tmp_path / "largest")
    for place in (path, path / "weights.safetensors"):
        target = other_classes(supernet)
        record = start_from(target, place)
        assert record.kind == "bundle" and record.has_new_classifier and record.is_one_network
        for name, tensor in supernet.state_dict().items():
            if "matrices" in name:
                assert torch.equal(target.state_dict()[name], torch.eye(len(tensor)))
            elif ".linear." not in name:
                assert torch.equal(target.state_dict()[name], tensor)


def test_a_bundle_of_a_smaller_network_is_refused(micro: Supernet, tmp_path: Path) -> None:
    path = bundle_of(micro, micro.space.smallest, tmp_path / "smallest")
    with pytest.raises(UserError, match="a part of its supernet.*largest network.*fine-tune the bundle"):
        start_from(other_classes(micro), path)


def test_another_structure_is_refused_by_what_differs(micro: Supernet, tmp_path: Path) -> None:
    save_supernet(tmp_path / "a" / "supernet.pt", micro, {})
    bundle = bundle_of(micro, micro.space.largest, tmp_path / "b")
    stages = (micro.space.stages[0], dataclasses.replace(micro.space.stages[1], kernel_sizes=(3, 5)))
    target = build_supernet(dataclasses.replace(micro.space, stages=stages))
    for place in (tmp_path / "a", bundle):
        with pytest.raises(
            UserError, match=r"'micro': stages\.1\.kernel_sizes was \(3, 5, 7\) and is \(3, 5\)"
        ):
            start_from(target, place)


def test_a_file_of_another_space_names_the_one_that_fits(
    tiny_space: StagedSpace, micro: Supernet, tmp_path: Path
) -> None:
    torch.save(build_supernet(tiny_space).state_dict(), tmp_path / "tiny.pt")
    with pytest.raises(UserError, match=r"(?s)unexpected.*It fits space 'mobilenet_v3_tiny' with width_mult"):
        start_from(micro, tmp_path / "tiny.pt")


def test_what_is_nowhere_is_named_with_what_there_is(micro: Supernet, tmp_path: Path) -> None:
    save_supernet(tmp_path / "one" / "supernet.pt", micro, {})
    (tmp_path / "two" / "checkpoints").mkdir(parents=True)
    (tmp_path / "two" / "checkpoints" / "step_00000007.pt").touch()
    with pytest.raises(UserError, match=r"No weights at 'three'.*\(one\)"):
        find_source("three", str(tmp_path))
    with pytest.raises(UserError, match="two is not finished.*step_00000007"):
        find_source("two", str(tmp_path))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished run `first` on the digits."""
    folder = tmp_path_factory.mktemp("runs")
    train_supernet.run(*SMALL, f"runs_dir={folder}", "run_name=first")
    return folder


def test_a_run_starts_from_another_one_and_records_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (*SMALL, f"runs_dir={runs}", "run_name=second", "init=first", "space.resolutions=[8]")
    path = train_supernet.run(*settings)
    assert "weights of first: " in capsys.readouterr().out
    first, second = load_supernet(runs / "first" / "supernet.pt")[1], load_supernet(path)[1]
    start = second.provenance["start"]
    assert start["sha256"] == first.sha256 and start["new_names"] == []
    assert second.provenance["config"]["init"] == "first"
    assert json.loads((runs / "second" / "config.json").read_text())["start"] == start
    assert "start" not in first.provenance
    # The same command again, without the source: the run is there, with its record.
    shutil.move(runs / "first", runs / "away")
    (runs / "second" / "supernet.pt").unlink()
    assert load_supernet(train_supernet.run(*settings))[1].provenance["start"] == start
    shutil.move(runs / "away", runs / "first")


def test_a_run_goes_on_from_the_same_source_alone(runs: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights.pt"
    shutil.copy(runs / "first" / "supernet.pt", source)
    settings = (*SMALL, f"runs_dir={runs}", "run_name=third", f"init={source}")
    train_supernet.run(*settings)
    state = torch.load(source, weights_only=True)
    state["state"]["layers.0.layer.conv.weight"] += 1
    torch.save(state, source)
    with pytest.raises(UserError, match=r"not the file that .*third started from \(its SHA-256 was"):
        train_supernet.run(*settings)
    for changed, text in ((("init=first",), "init was '.*' and is 'first'"), ((), "and is None")):
        with pytest.raises(UserError, match=text):
            train_supernet.run(*settings[:-1], *changed)


def test_weights_are_taken_before_the_first_step(runs: Path, tmp_path: Path) -> None:
    """With a learning rate of almost nothing, the trained weights are those of the source."""
    slow = ("phases.sandwich.lr=1e-12", "training.weight_decay=0")
    path = train_supernet.run(*SMALL, *slow, f"runs_dir={tmp_path}", "run_name=b", f"init={runs / 'first'}")
    first, after = (load_supernet(file)[0].state_dict() for file in (runs / "first" / "supernet.pt", path))
    for name, tensor in first.items():
        if "running" not in name:
            torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)


def test_a_new_classifier_teaches_nothing(runs: Path, tmp_path: Path) -> None:
    state = torch.load(runs / "first" / "supernet.pt", weights_only=True)["state"]
    state = {name: tensor for name, tensor in state.items() if ".linear." not in name}
    torch.save(state, tmp_path / "headless.pt")
    settings = (*SMALL, f"runs_dir={tmp_path}", "run_name=b", "phases.sandwich.teacher=frozen")
    with pytest.raises(UserError, match="no network is trained before it"):
        train_supernet.run(*settings)
    with pytest.raises(UserError, match="frozen teacher, which knows nothing yet.*none → 10 classes"):
        train_supernet.run(*settings, f"init={tmp_path / 'headless.pt'}")
    assert not (tmp_path / "b" / "config.json").exists()
    train_supernet.run(*settings, f"init={runs / 'first'}")


def test_new_parameters_have_a_learning_rate_of_their_own(runs: Path, tmp_path: Path) -> None:
    """With almost no learning rate and a large factor, the new classifier alone moves."""
    state = torch.load(runs / "first" / "supernet.pt", weights_only=True)["state"]
    torch.save({name: tensor for name, tensor in state.items() if ".linear." not in name}, tmp_path / "h.pt")
    slow = ("phases.sandwich.lr=1e-12", "+phases.sandwich.new_lr_factor=1e10", "training.weight_decay=0")
    settings = (*SMALL, *slow, f"runs_dir={tmp_path}", f"init={tmp_path / 'h.pt'}")
    trained = load_supernet(train_supernet.run(*settings, "run_name=b"))[0].state_dict()
    space = load_supernet(runs / "first" / "supernet.pt")[1].family
    initial = build_supernet(space, seed=0).state_dict()
    for name, tensor in trained.items():
        if ".linear." in name:
            assert (tensor - initial[name]).abs().max() > 1e-4, name
        elif "running" not in name:
            torch.testing.assert_close(tensor, state[name], atol=1e-6, rtol=0)


def test_an_interrupted_start_goes_on_bit_for_bit(runs: Path, tmp_path: Path) -> None:
    """The run is set back to its first step, and its source is gone: the end is the same."""
    state = torch.load(runs / "first" / "supernet.pt", weights_only=True)["state"]
    source = tmp_path / "headless.pt"
    torch.save({name: tensor for name, tensor in state.items() if ".linear." not in name}, source)
    every_step = ("training.checkpoint_every_steps=1", "training.keep_checkpoints=9")
    factor = "+phases.sandwich.new_lr_factor=4"
    settings = (*SMALL, *every_step, factor, f"runs_dir={tmp_path}", "run_name=b", f"init={source}")
    path = train_supernet.run(*settings)
    expected = load_supernet(path)[0].state_dict()
    source.unlink()
    path.unlink()
    checkpoints = sorted((tmp_path / "b" / "checkpoints").glob("step_*.pt"))
    assert len(checkpoints) > 1
    for file in checkpoints[1:]:
        file.unlink()
    again = load_supernet(train_supernet.run(*settings))[0].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())
