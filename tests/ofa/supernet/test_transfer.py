"""Weights of one supernet as the start of another: what is taken bit for bit, adapted, new, or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.structure import structure_differences
from ofa.supernet.supernet import Supernet, build_supernet
from ofa.supernet.transfer import fill_largest, transfer_weights

SPACES = ("micro_space", "micro_proxyless", "micro_resnet", "micro_resnet_rank")
MakeSupernet = Callable[[StagedSpace, int], Supernet]


@pytest.fixture(params=SPACES)
def source(request: pytest.FixtureRequest, make_supernet: MakeSupernet) -> Supernet:
    """A supernet of each family: two channels, five classes."""
    return make_supernet(request.getfixturevalue(request.param), 1)


def copied(supernet: Supernet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


def changed_names(before: dict[str, Tensor], after: Supernet) -> set[str]:
    return {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before[name])}


def test_other_classes_take_all_but_the_classifier(source: Supernet) -> None:
    target = build_supernet(dataclasses.replace(source.space, num_classes=3, resolutions=(8, 12, 16)))
    before = copied(target)
    report = transfer_weights(target, source.state_dict())
    classifier = [f"layers.{len(source.layers) - 1}.linear.{part}" for part in ("weight", "bias")]
    assert list(report.new_names) == classifier and not report.adapted_names
    assert changed_names(source_state(source, target), target) == set(classifier)
    assert all(torch.equal(before[name], target.state_dict()[name]) for name in classifier)
    num_all = len(source.state_dict())
    assert report.text == f"{num_all - 2} of {num_all} tensors; new: classifier (5 → 3 classes)"


def source_state(source: Supernet, target: Supernet) -> dict[str, Tensor]:
    """Return the source's tensors, and zeros where their shapes differ from the target's."""
    shapes = {name: tensor.shape for name, tensor in target.state_dict().items()}
    return {
        name: tensor if tensor.shape == shapes[name] else torch.full(shapes[name], torch.nan)
        for name, tensor in source.state_dict().items()
    }


def test_equal_classes_take_everything_unless_they_are_others(source: Supernet) -> None:
    target = build_supernet(source.space)
    report = transfer_weights(target, source.state_dict())
    assert not changed_names(source.state_dict(), target)
    assert report.text == f"{len(source.state_dict())} of {len(source.state_dict())} tensors"
    other = build_supernet(source.space)
    report = transfer_weights(other, source.state_dict(), is_classifier_kept=False)
    assert report.has_new_classifier and "classifier (5 → 5 classes)" in report.text
    assert changed_names(source.state_dict(), other) == set(report.new_names)


@pytest.mark.parametrize(("source_channels", "in_channels"), [(3, 1), (1, 3), (2, 1), (1, 4)])
def test_the_response_to_a_grey_image_stays(
    micro_space: StagedSpace, make_supernet: MakeSupernet, source_channels: int, in_channels: int
) -> None:
    source = make_supernet(dataclasses.replace(micro_space, in_channels=source_channels), 2).double()
    target = build_supernet(dataclasses.replace(micro_space, in_channels=in_channels)).double().eval()
    report = transfer_weights(target, source.state_dict())
    assert report.adapted_names == ("layers.0.layer.conv.weight",) and not report.new_names
    assert f"adapted: first convolution ({source_channels} → {in_channels} channels)" in report.text
    grey = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    config = dataclasses.replace(micro_space.smallest, resolution=8)
    expected = source(grey.expand(-1, source_channels, -1, -1), config)
    torch.testing.assert_close(target(grey.expand(-1, in_channels, -1, -1), config), expected)


def test_channels_without_a_rule_make_a_new_first_convolution(source: Supernet) -> None:
    target = build_supernet(dataclasses.replace(source.space, in_channels=3, num_classes=4))
    report = transfer_weights(target, source.state_dict())
    assert report.new_names[0] == "layers.0.layer.conv.weight" and len(report.new_names) == 3
    assert "new: first convolution (2 → 3 channels), classifier (5 → 4 classes)" in report.text


def test_a_state_without_classifier_is_taken(source: Supernet) -> None:
    state = {name: tensor for name, tensor in source.state_dict().items() if ".linear." not in name}
    report = transfer_weights(build_supernet(source.space), state)
    assert "new: classifier (none → 5 classes)" in report.text


def test_every_misfit_is_named_and_nothing_changed(source: Supernet) -> None:
    target = build_supernet(dataclasses.replace(source.space, num_classes=3))
    state, before = dict(copied(source)), copied(target)
    names = list(state)
    del state[names[1]]
    state["layers.99.weight"] = torch.zeros(2)
    state[names[2]] = torch.zeros(3)
    state[names[3]] = torch.full_like(state[names[3]], torch.inf)
    state[names[4]] = state[names[4]].long()
    state[names[-2]] = torch.zeros(5, 7)
    with pytest.raises(UserError) as caught:
        transfer_weights(target, state, what="The file", names={names[1]: "theirs"}, hint="Use it so.")
    for part in (
        "The file does not have",
        "1 missing: theirs",
        "1 unexpected: layers.99.weight",
        f"{names[2]} has shape [3], expected",
        f"{names[-2]} has shape [5, 7], expected [5, ",
        f"1 not finite: {names[3]}",
        f"1 not floating-point: {names[4]}",
        "\nUse it so.",
    ):
        assert part in str(caught.value)
    assert not changed_names(before, target)


def test_half_precision_is_widened(source: Supernet) -> None:
    target = build_supernet(source.space)
    transfer_weights(target, {name: tensor.half() for name, tensor in source.state_dict().items()})
    name = "layers.0.layer.conv.weight"
    assert torch.equal(target.state_dict()[name], source.state_dict()[name].half().float())


def test_the_largest_network_fills_a_supernet(source: Supernet) -> None:
    config = dataclasses.replace(source.space.largest, resolution=source.space.resolutions[0])
    network = source.extract(config)
    target = build_supernet(source.space).eval()
    fill_largest(target, config, network)
    images = torch.randn(2, 2, config.resolution, config.resolution)
    different = changed_names(source.state_dict(), target)
    if any(1.0 in stage.ranks for stage in source.space.stages):
        # The kernels that are not split are taken by new factors.
        torch.testing.assert_close(target(images, config), network(images), rtol=1e-4, atol=1e-4)
        assert different == {
            f"layers.{index}.middle.conv.{part}" for index in (4, 5) for part in ("first", "last")
        }
        return
    assert torch.equal(target(images, config), network(images))
    assert all("matrices" in name for name in different)
    for name, tensor in target.state_dict().items():
        if "matrices" in name:
            assert torch.equal(tensor, torch.eye(len(tensor)))


def test_differences_of_structures_are_named(micro_space: StagedSpace, tiny_space: StagedSpace) -> None:
    free = dataclasses.replace(
        micro_space, name="other", num_classes=9, in_channels=1, resolutions=(4, 8, 12, 16)
    )
    assert not structure_differences(micro_space, free.restrict(compound=True))
    stages = (micro_space.stages[0], dataclasses.replace(micro_space.stages[1], kernel_sizes=(3, 5)))
    other = dataclasses.replace(micro_space, stages=stages, width_multiplier=1.2)
    texts = structure_differences(micro_space, other)
    assert texts == [
        "stages.1.kernel_sizes was (3, 5, 7) and is (3, 5)",
        "width_multiplier was 1.0 and is 1.2",
    ]
    assert structure_differences(micro_space, tiny_space) == [
        "it has 2 stages; space 'mobilenet_v3_tiny' has 3"
    ]
