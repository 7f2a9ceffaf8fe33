"""Published fixed networks: read, built, run, found in spaces of ours, and exported with their weights."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_network import description
from torch import Tensor

from ofa.architecture.cost import network_cost
from ofa.architecture.lowering import lower
from ofa.common.errors import UserError
from ofa.export.bundle import load_bundle
from ofa.export.write import export_bundle
from ofa.modules.static import StaticNetwork
from ofa.published.bundle import photograph_card
from ofa.published.convert import own_space, subnet_of
from ofa.published.network import PublishedNetwork, read_network
from ofa.space.staged import StagedSpace

NAMES = {
    "1080ti_gpu64-22ms_top1-75.3_finetune-25": ("proxyless_nas", 188),
    "LG-G8_lat-24ms_top1-76.4_finetune-25": ("mobilenet_v3", 220),
    "cpu_lat-15ms_top1-74.6_finetune-25": ("proxyless_nas", 188),
    "note10_lat-30ms_top1-78.4_finetune-75": ("mobilenet_v3", 224),
    "pixel1_lat-79ms_top1-78.7_finetune-75": ("mobilenet_v3", 224),
}


def write(folder: Path, values: dict[str, Any], image_size: object = 32) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "net.config").write_text(json.dumps(values))
    (folder / "run.config").write_text(json.dumps({"image_size": image_size}))
    return folder / "net.config"


def published_state(network: StaticNetwork) -> dict[str, Tensor]:
    """Return the state of the small network under published names, written down by hand."""
    heads = {0: "first_conv", 5: "final_expand_layer", 7: "feature_mix_layer", 8: "classifier"}
    parts = {
        "expand.conv": "inverted_bottleneck.conv",
        "expand.bn": "inverted_bottleneck.bn",
        "depthwise": "depth_conv.conv",
        "depthwise_bn": "depth_conv.bn",
        "squeeze_excite": "depth_conv.se.fc",
        "project": "point_linear",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        _, index, rest = name.split(".", 2)
        if int(index) in heads:
            state[f"{heads[int(index)]}.{rest}"] = tensor
            continue
        ours = max((part for part in parts if rest.startswith(f"{part}.")), key=len)
        place = f"blocks.{int(index) - 1}.mobile_inverted_conv.{parts[ours]}"
        state[place + rest.removeprefix(ours)] = tensor
    return state


@pytest.fixture
def small(tmp_path: Path) -> PublishedNetwork:
    return read_network(write(tmp_path / "small", description()))


@pytest.fixture
def weights(small: PublishedNetwork, tmp_path: Path) -> Path:
    network = small.build()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 + 0.3 * torch.rand(tensor.shape, generator=generator))
    torch.save({"state_dict": published_state(network)}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


# -- the published networks ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_published_networks_are_read_built_and_run(name: str, shared_data: Path) -> None:
    network = read_network(shared_data / "subnets" / name / "net.config")
    assert (network.family, network.resolution) == NAMES[name]
    assert network.name == name
    module = network.build()
    with torch.inference_mode():
        logits = module(torch.randn(1, *module.image_shape))
    assert logits.shape == (1, 1000)
    assert torch.isfinite(logits).all()
    space, config = own_space(network)
    assert lower(space, config) == network.specs


def test_macs_are_those_of_the_description(shared_data: Path) -> None:
    folder = shared_data / "subnets" / "cpu_lat-15ms_top1-74.6_finetune-25"
    values = json.loads((folder / "net.config").read_text())
    size, macs = 94, 94**2 * 40 * 27
    for entry in values["blocks"]:
        settings = entry["mobile_inverted_conv"]
        mid = settings["mid_channels"] or settings["in_channels"]
        out = (size - 1) // settings["stride"] + 1
        expand = size**2 * settings["in_channels"] * mid if settings["expand_ratio"] != 1 else 0
        macs += expand + out**2 * mid * (settings["kernel_size"] ** 2 + settings["out_channels"])
        size = out
    macs += size**2 * 416 * 1664 + 1664 * 1000
    assert network_cost(read_network(folder / "net.config").specs).macs == macs


@pytest.mark.parametrize(
    "name", ["note10_lat-30ms_top1-78.4_finetune-75", "pixel1_lat-79ms_top1-78.7_finetune-75"]
)
def test_networks_inside_a_space_convert(name: str, full_space: StagedSpace, shared_data: Path) -> None:
    network = read_network(shared_data / "subnets" / name / "net.config")
    space = dataclasses.replace(full_space, width_multiplier=1.2)
    config = subnet_of(network, space)
    assert space.contains(config)
    assert lower(space, config) == network.specs
    with pytest.raises(UserError, match="32, 48, 96, 136, 192 channels; those of the space 24, 40, 80, 112"):
        subnet_of(network, full_space)


@pytest.mark.parametrize(
    ("name", "space_name", "reason"),
    [
        ("LG-G8", "mobilenet_v3", "resolution is 220; the space has 128, 144, 160"),
        ("1080ti", "proxyless_nas", "resolution is 188; the space has 128"),
        ("cpu", "proxyless_nas", "resolution is 188; the space has 128"),
        ("cpu", "mobilenet_v3", "family proxyless_nas; space 'mobilenet_v3' is of family mobilenet_v3"),
    ],
)
def test_networks_outside_a_space_are_refused_with_the_reason(
    name: str, space_name: str, reason: str, load_space: Callable[[str], StagedSpace], shared_data: Path
) -> None:
    (folder,) = (shared_data / "subnets").glob(f"{name}_*")
    network, space = read_network(folder / "net.config"), load_space(space_name)
    with pytest.raises(UserError, match=reason):
        subnet_of(network, space)
    if network.family == space.family:
        fitting = dataclasses.replace(space, resolutions=(*space.resolutions[:2], network.resolution))
        assert lower(fitting, subnet_of(network, fitting)) == network.specs


def test_every_reason_is_given(small: PublishedNetwork) -> None:
    space, config = own_space(small)
    assert str(config) == "32px: 5x3 3x4 | 7x6"
    stages = (
        dataclasses.replace(space.stages[0], kernel_sizes=(3,), expand_ratios=(3.0,)),
        dataclasses.replace(space.stages[1], channels=32, depths=(2,)),
    )
    other = dataclasses.replace(space, resolutions=(64,), stages=stages)
    with pytest.raises(UserError) as caught:
        subnet_of(small, other)
    for reason in (
        "its stages have 16, 24 channels; those of the space 16, 32",
        "its resolution is 32; the space has 64",
        "kernel_size of stage 0, block 0 is 5; the space has 3",
        "expand_ratio of stage 0, block 1 is 4; the space has 3",
        "stage 1 has depth 1; the space has 2",
    ):
        assert reason in str(caught.value)
    with pytest.raises(UserError, match="it has conv-in1x32-out40.* where the space has conv-in1x32-out48"):
        subnet_of(small, dataclasses.replace(space, head_channels=(32, 48)))
    restricted = dataclasses.replace(space, resolutions=(32, 64)).restrict({"resolution": [64]})
    with pytest.raises(UserError, match="its resolution is 32; the space has 64"):
        subnet_of(small, restricted)


# -- weights and bundles ---------------------------------------------------------------------------


def test_weights_are_those_of_the_file(small: PublishedNetwork, weights: Path) -> None:
    state = published_state(small.build(weights))
    saved = torch.load(weights, weights_only=True)["state_dict"]
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in saved)
    assert all(tensor.std() > 0 for name, tensor in saved.items() if tensor.numel() > 1)


def test_wrong_weights_are_refused(small: PublishedNetwork, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)["state_dict"]
    name = "blocks.1.mobile_inverted_conv.depth_conv.se.fc.reduce.bias"
    del state[name]
    state["extra"] = torch.zeros(1)
    state["classifier.linear.weight"] = torch.zeros(7, 40)
    torch.save(state, weights)
    message = (
        r"1 missing: blocks\.1\.depth_conv\.se\.fc\.reduce\.bias\n.*1 unexpected: extra\n.*"
        r"classifier\.linear\.weight has shape \[7, 40\], expected \[6, 40\]"
    )
    with pytest.raises(UserError, match=message):
        small.build(weights)


@pytest.mark.parametrize("inside", [False, True])
def test_a_published_network_becomes_a_bundle(
    inside: bool, small: PublishedNetwork, weights: Path, tmp_path: Path
) -> None:
    space = None
    if inside:
        home, _ = own_space(small)
        stage = dataclasses.replace(home.stages[0], expand_ratios=(3.0, 4.0, 6.0), depths=(1, 2))
        space = dataclasses.replace(home, name="ours", stages=(stage, home.stages[1]))
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    card = photograph_card(small, space, weights, tmp_path / "classes.txt")
    network = small.build(weights)
    export_bundle(network, card, tmp_path / "bundle", formats=())
    bundle = load_bundle(tmp_path / "bundle")
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(bundle.network(images), network(images))
    assert bundle.subnet.space.name == ("ours" if inside else "small")
    assert bundle.card.class_names == tuple("abcdef")
    assert bundle.card.provenance["weights"] == "weights.pth"
    with pytest.raises(UserError, match="There are 1 class names; space .* has 6 classes"):
        (tmp_path / "classes.txt").write_text("a\n")
        photograph_card(small, space, weights, tmp_path / "classes.txt")
    with pytest.raises(UserError, match="No weights at"):
        photograph_card(small, space, tmp_path / "none.pth")


# -- descriptions ----------------------------------------------------------------------------------


def test_everything_wrong_with_a_description_is_named_at_once(tmp_path: Path) -> None:
    values = description()
    values["first_conv"]["groups"] = 2
    values["blocks"][0]["shortcut"] = None
    values["blocks"][1]["mobile_inverted_conv"]["name"] = "ZeroLayer"
    values["blocks"][2]["mobile_inverted_conv"]["kernel_size"] = 4
    values["blocks"][3]["mobile_inverted_conv"]["act_func"] = "swish"
    values["feature_mix_layer"]["out_channels"] = -4
    del values["final_expand_layer"]["stride"]
    path = write(tmp_path / "wrong", values, image_size="big")
    with pytest.raises(UserError) as caught:
        read_network(path)
    for text in (
        "run.config.image_size is 'big'; expected a positive integer",
        "first_conv.groups is 2; expected 1",
        "blocks.0 has no shortcut; expected one at stride 1 from 8 to 8 channels",
        "blocks.1 is a 'ZeroLayer'",
        "blocks.2.kernel_size is 4; expected an odd number",
        "blocks.3.act_func is 'swish'; known: h_swish, relu, relu6",
        "feature_mix_layer.out_channels is -4",
        "final_expand_layer.stride is None",
    ):
        assert text in str(caught.value)
    values = description()
    values["classifier"]["in_features"] = 44
    values["blocks"][3]["shortcut"] = {"name": "IdentityLayer"}
    with pytest.raises(UserError, match="blocks.3 has a shortcut; expected none at stride 2 from 16 to 24"):
        read_network(write(tmp_path / "wrong", values))
    values["blocks"][3]["shortcut"] = None
    with pytest.raises(
        UserError, match="40 channels leave conv-in1x32-out40.*, and linear-in44-out6 follows"
    ):
        read_network(write(tmp_path / "wrong", values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "ResNets"}, "kind 'ResNets'; known: MobileNetV3, ProxylessNASNets"),
        ({"blocks": []}, "blocks are missing"),
        ({"blocks": [None]}, "blocks.0 is a None"),
        ({"bn": None}, "bn.eps is None"),
        ({"first_conv": [1]}, "first_conv is missing"),
    ],
)
def test_descriptions_of_other_things_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_network(write(tmp_path / "other", description() | change))


def test_damaged_descriptions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cut", description())
    text = path.read_text()
    for content, message in ((text[:200], "is truncated"), ("[1]", "holds a list"), ("", "is empty")):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"net\.config.*{message}"):
            read_network(path)
    path.write_text(text)
    path.with_name("run.config").unlink()
    with pytest.raises(UserError, match=r"No run\.config at"):
        read_network(path)
