"""Published checkpoints as supernets: both generations of names, the published logits, and mismatches."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from published_names import mobile_config, mobilenet_v3_name, resnet_config
from torch import Tensor

from ofa.common.errors import UserError
from ofa.published.checkpoint import import_supernet, load_published
from ofa.published.names import short_name
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet

FAMILIES = {
    "mbv3_w1.0": ("mobilenet_v3", 1.0, mobile_config),
    "mbv3_w1.2": ("mobilenet_v3", 1.2, mobile_config),
    "proxyless_w1.3": ("proxyless_nas", 1.3, mobile_config),
    "resnet50": ("resnet50", 1.0, resnet_config),
}


def older_name(name: str) -> str:
    """Return the name of the older generation, as the description of the format has it."""
    name = re.sub(r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", name)
    for new, old in (
        (".conv.conv.weight", ".conv.weight"),
        (".bn.bn.", ".bn."),
        (".linear.linear.", ".linear."),
    ):
        name = name.replace(new, old)
    return name


def newer_state(supernet: Supernet) -> dict[str, Tensor]:
    """Return the tensors of a MobileNetV3 supernet under the newer published names."""
    return {
        mobilenet_v3_name(name, len(supernet.layers)): tensor.clone()
        for name, tensor in supernet.state_dict().items()
    }


@pytest.fixture
def supernet(micro_space: StagedSpace, make_supernet: Callable[[StagedSpace, int], Supernet]) -> Supernet:
    return make_supernet(micro_space, 3)


@pytest.fixture
def checkpoint(supernet: Supernet, tmp_path: Path) -> Path:
    path = tmp_path / "published.pth"
    torch.save(newer_state(supernet), path)
    return path


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("first_conv.conv.weight", "first_conv.conv.weight"),
        ("blocks.0.conv.depth_conv.bn.bias", "blocks.0.mobile_inverted_conv.depth_conv.bn.bias"),
        (
            "blocks.12.conv.inverted_bottleneck.conv.conv.weight",
            "blocks.12.mobile_inverted_conv.inverted_bottleneck.conv.weight",
        ),
        (
            "blocks.3.conv.depth_conv.conv.7to5_matrix",
            "blocks.3.mobile_inverted_conv.depth_conv.conv.7to5_matrix",
        ),
        (
            "blocks.3.conv.depth_conv.se.fc.reduce.bias",
            "blocks.3.mobile_inverted_conv.depth_conv.se.fc.reduce.bias",
        ),
        (
            "blocks.3.conv.point_linear.bn.bn.running_var",
            "blocks.3.mobile_inverted_conv.point_linear.bn.running_var",
        ),
        ("input_stem.1.conv.conv.conv.weight", "input_stem.1.conv.conv.weight"),
        ("input_stem.1.conv.bn.bn.weight", "input_stem.1.conv.bn.weight"),
        ("blocks.2.downsample.bn.bn.weight", "blocks.2.downsample.bn.weight"),
        ("classifier.linear.linear.weight", "classifier.linear.weight"),
    ],
)
def test_both_generations_of_a_name_are_one(newer: str, older: str) -> None:
    assert short_name(newer) == short_name(older)
    assert short_name(short_name(newer)) == short_name(newer)


@pytest.mark.parametrize("rename", [str, older_name], ids=["newer", "older"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_becomes_the_supernet(
    rename: Callable[[str], str],
    wrapped: bool,
    supernet: Supernet,
    random_configs: Callable[[StagedSpace, int, int], list[SubnetConfig]],
    tmp_path: Path,
) -> None:
    state: dict[str, Any] = {rename(name): tensor for name, tensor in newer_state(supernet).items()}
    state["first_conv.bn.num_batches_tracked"] = torch.tensor(7)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "published.pth")
    imported = import_supernet(supernet.space, tmp_path / "published.pth")
    assert not imported.training
    for config in random_configs(supernet.space, 5, 0):
        images = torch.randn(2, 2, config.resolution, config.resolution)
        assert torch.equal(imported(images, config), supernet(images, config))


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_weights", shared_data / "golden" / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_imported_weights_give_the_published_logits(
    family: str, load_space: Callable[[str], StagedSpace], shared_data: Path, weights: ModuleType
) -> None:
    golden = json.loads((shared_data / "golden" / "once_for_all.json").read_text())[family]
    name, width_multiplier, config_of = FAMILIES[family]
    space = dataclasses.replace(load_space(name), width_multiplier=width_multiplier, num_classes=10)
    state = {
        entry: torch.from_numpy(weights.tensor_for(entry, shape))
        for entry, shape in golden["state_dict"].items()
    }
    with torch.device("meta"):
        supernet, other = (Supernet(space).double().eval() for _ in range(2))
    supernet, other = (network.to_empty(device="cpu") for network in (supernet, other))
    load_published(supernet, state, "the golden checkpoint")
    older = {older_name(entry): tensor for entry, tensor in state.items()}
    assert len(older.keys() - state.keys()) > len(state) / 2
    load_published(other, older, "the golden checkpoint with older names")
    assert all(map(torch.equal, supernet.state_dict().values(), other.state_dict().values()))
    case = golden["cases"][0]
    config = config_of(space, case["resolution"], case["arch"])
    images = torch.from_numpy(weights.images_for(case["image_seed"], case["resolution"]))
    logits, expected = supernet(images, config), torch.tensor(case["logits"], dtype=torch.float64)
    assert (logits - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert torch.equal(supernet.extract(config)(images), logits)


def test_every_misfit_is_named_at_once(supernet: Supernet, tmp_path: Path) -> None:
    state = {older_name(name): tensor for name, tensor in newer_state(supernet).items()}
    missing, wrong = [name for name in state if "depth_conv.conv" in name][:2], "classifier.linear.bias"
    for name in missing:
        del state[name]
    state[wrong] = torch.zeros(7)
    state["blocks.1.mobile_inverted_conv.extra.weight"] = torch.zeros(1)
    path = tmp_path / "published.pth"
    torch.save(state, path)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_published(supernet, state, f"The checkpoint {path}")
    text = str(caught.value)
    for name in missing:
        assert short_name(name) in text
    for part in (
        str(path),
        "2 missing",
        "1 unexpected: blocks.1.mobile_inverted_conv.extra.weight",
        "classifier.linear.bias has shape [7], expected [5]",
        "family mobilenet_v3, width_multiplier 1 and 5 classes",
    ):
        assert part in text
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())
    with pytest.raises(UserError, match="2 missing"):
        import_supernet(supernet.space, path)


def test_entries_that_are_no_numbers_are_named(supernet: Supernet, checkpoint: Path) -> None:
    state: dict[str, Any] = newer_state(supernet)
    names = list(state)
    state[names[0]] = torch.full_like(state[names[0]], float("nan"))
    state[names[5]][0] = float("inf")
    state["note"] = "text"
    torch.save(state, checkpoint)
    with pytest.raises(UserError) as caught:
        import_supernet(supernet.space, checkpoint)
    assert "1 not plain tensors: note" in str(caught.value)
    assert f"2 not finite: {names[0]}, {names[5]}" in str(caught.value)


def test_one_tensor_under_two_names_is_refused(supernet: Supernet) -> None:
    state = newer_state(supernet)
    name = next(name for name in state if ".bn.bn." in name)
    state[older_name(name)] = state[name]
    with pytest.raises(UserError, match=f"the same tensor under two names: {name} and {older_name(name)}"):
        load_published(supernet, state, "The checkpoint")


def test_the_space_must_be_that_of_the_checkpoint(supernet: Supernet, checkpoint: Path) -> None:
    for change in ({"width_multiplier": 2.0}, {"head_channels": (24, 40)}):
        with pytest.raises(UserError, match="of another shape: .*\nSpace 'micro' has family.*\nIt fits none"):
            import_supernet(dataclasses.replace(supernet.space, **change), checkpoint)


def test_the_error_names_the_space_that_fits(
    load_space: Callable[[str], StagedSpace], supernet: Supernet, tmp_path: Path
) -> None:
    space = dataclasses.replace(load_space("mobilenet_v3_tiny"), num_classes=7, width_multiplier=1.2)
    torch.save(newer_state(Supernet(space)), tmp_path / "a.pth")
    with pytest.raises(UserError, match="It fits space 'mobilenet_v3_tiny' with width_multiplier 1.2"):
        import_supernet(supernet.space, tmp_path / "a.pth")


def test_classes_and_channels_are_those_of_the_checkpoint(supernet: Supernet, checkpoint: Path) -> None:
    other = dataclasses.replace(supernet.space, num_classes=6, in_channels=3)
    imported = import_supernet(other, checkpoint)
    assert imported.space == supernet.space
    state = imported.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in supernet.state_dict().items())


def test_damaged_files_and_code_are_refused(supernet: Supernet, checkpoint: Path, tmp_path: Path) -> None:
    content, ran = checkpoint.read_bytes(), tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (ran,))

    wrong = [content[: len(content) // 2], b"", b"hello", pickle.dumps({"first_conv.conv.weight": Code()})]
    for damaged in wrong:
        checkpoint.write_bytes(damaged)
        with pytest.raises(UserError, match=r"published\.pth cannot be read"):
            import_supernet(supernet.space, checkpoint)
    torch.save({"state_dict": newer_state(supernet), "optimizer": Code()}, checkpoint)
    with pytest.raises(UserError, match=r"published\.pth cannot be read"):
        import_supernet(supernet.space, checkpoint)
    assert not ran.exists()
    torch.save([torch.zeros(3)], checkpoint)
    with pytest.raises(UserError, match="holds a list; expected named entries"):
        import_supernet(supernet.space, checkpoint)
    torch.save({}, checkpoint)
    with pytest.raises(UserError, match="no entries"):
        import_supernet(supernet.space, checkpoint)
    with pytest.raises(UserError, match="No published checkpoint at"):
        import_supernet(supernet.space, tmp_path / "none.pth")
