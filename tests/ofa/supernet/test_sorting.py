"""Tests of ofa.supernet.sorting: sorting moves channels and changes no trained network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ofa.modules.split import composed_weight, split_weights
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.blocks import ElasticConvLayer, ElasticLinearLayer, ElasticMBConvLayer
from ofa.supernet.bottleneck import ElasticBottleneckLayer
from ofa.supernet.layer import segment_order
from ofa.supernet.operators import ElasticConvBNAct
from ofa.supernet.split import ElasticSplitConvBNAct
from ofa.supernet.supernet import Supernet

MakeSupernet = Callable[[StagedSpace, int], Supernet]
DrawConfigs = Callable[[StagedSpace, int, int], list[SubnetConfig]]


@torch.no_grad()
def logits(supernet: Supernet, config: SubnetConfig) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, supernet.space.in_channels, config.resolution, config.resolution)
    return torch.as_tensor(supernet(torch.randn(shape, generator=generator), config))


def relative_difference(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("name", ["micro_space", "small_space", "tiny_space", "micro_proxyless"])
def test_sorting_keeps_the_largest_network(
    name: str, request: pytest.FixtureRequest, make_supernet: MakeSupernet
) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    supernet = make_supernet(space, 0)
    before = logits(supernet, space.largest)
    narrow = space.restrict(
        {"expand_ratio": [space.stages[0].expand_ratios[0], space.stages[1].expand_ratios[0]]}
    )
    narrow_before = logits(supernet, narrow.largest)
    supernet.sort_channels(space.keep_largest({"expand_ratio": 1}))
    assert relative_difference(logits(supernet, space.largest), before) <= 1e-5
    # A narrow network, never trained yet, is now made of other channels.
    assert relative_difference(logits(supernet, narrow.largest), narrow_before) > 1e-2


def test_sorting_keeps_every_network_of_the_trained_space(
    small_space: StagedSpace, make_supernet: MakeSupernet, random_configs: DrawConfigs
) -> None:
    for trained in (
        small_space.keep_largest({"expand_ratio": 1}),
        small_space.restrict({"expand_ratio": (4, 6)}),
    ):
        supernet = make_supernet(small_space, 1)
        configs = random_configs(trained, 8, 2)
        before = [logits(supernet, config) for config in configs]
        weights = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        supernet.sort_channels(trained)
        assert any(not torch.equal(t, weights[name]) for name, t in supernet.state_dict().items())
        for config, expected in zip(configs, before, strict=True):
            assert relative_difference(logits(supernet, config), expected) <= 1e-5


def blocks(supernet: Supernet) -> list[ElasticMBConvLayer]:
    return [layer for layer in supernet.layers if isinstance(layer, ElasticMBConvLayer) and layer.expand]


def is_descending(importance: Tensor) -> bool:
    return bool((importance.diff() <= 1e-6).all())


def test_channels_end_up_in_descending_importance(
    small_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(small_space, 3)
    before = [layer.project.conv.weight.detach().abs().sum((0, 2, 3)) for layer in blocks(supernet)]
    assert not any(is_descending(importance) for importance in before)
    supernet.sort_channels(small_space.keep_largest({"expand_ratio": 1}))
    for layer, old in zip(blocks(supernet), before, strict=True):
        new = layer.project.conv.weight.detach().abs().sum((0, 2, 3))
        assert is_descending(new)
        torch.testing.assert_close(new, old.sort(descending=True).values)
        if layer.squeeze_excite is not None:
            assert is_descending(layer.squeeze_excite.expand.weight.detach().abs().sum((0, 2, 3)))


def test_squeeze_excite_is_sorted_on_both_sides(
    small_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(small_space, 4)
    with_se = [layer for layer in blocks(supernet) if layer.squeeze_excite is not None]
    assert len(with_se) == 6
    before = [
        layer.squeeze_excite.reduce.weight.detach().clone() for layer in with_se if layer.squeeze_excite
    ]
    supernet.sort_channels(small_space.keep_largest({"expand_ratio": 1}))
    for layer, old in zip(with_se, before, strict=True):
        assert layer.squeeze_excite is not None
        new = layer.squeeze_excite.reduce.weight.detach()
        for dim in (0, 1):
            other = tuple({0, 1, 2, 3} - {dim})
            assert not torch.allclose(new.sum(other), old.sum(other))
            torch.testing.assert_close(new.sum(other).sort().values, old.sum(other).sort().values)


def test_sorting_twice_changes_nothing_more(small_space: StagedSpace, make_supernet: MakeSupernet) -> None:
    supernet = make_supernet(small_space, 5)
    trained = small_space.keep_largest({"expand_ratio": 1})
    supernet.sort_channels(trained)
    once = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.sort_channels(trained)
    assert all(torch.equal(tensor, once[name]) for name, tensor in supernet.state_dict().items())


TRAINED_WIDTHS = {"widest": 1, "two": 2}


@pytest.mark.parametrize("widths", TRAINED_WIDTHS.values(), ids=TRAINED_WIDTHS)
@pytest.mark.parametrize("ratios", [1, 2])
def test_sorting_streams_keeps_every_trained_network(
    widths: int,
    ratios: int,
    micro_resnet: StagedSpace,
    make_supernet: MakeSupernet,
    random_configs: DrawConfigs,
) -> None:
    trained = micro_resnet.keep_largest({"width": widths, "expand_ratio": ratios})
    supernet = make_supernet(micro_resnet, 1)
    configs = random_configs(trained, 12, 2)
    untrained = micro_resnet.smallest
    before, other = [logits(supernet, config) for config in configs], logits(supernet, untrained)
    supernet.sort_channels(trained)
    for config, expected in zip(configs, before, strict=True):
        assert relative_difference(logits(supernet, config), expected) <= 1e-5
    assert relative_difference(logits(supernet, untrained), other) > 1e-2


def bottlenecks(supernet: Supernet) -> list[ElasticBottleneckLayer]:
    return [layer for layer in supernet.layers if isinstance(layer, ElasticBottleneckLayer)]


def test_streams_end_up_in_descending_importance_of_all_their_consumers(
    micro_resnet: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_resnet, 3)

    def norm(*weights: Tensor) -> Tensor:
        return torch.stack([w.detach().abs().sum((0, *range(2, w.dim()))) for w in weights]).sum(0)

    def importances() -> list[Tensor]:
        first, second, third, fourth, fifth = bottlenecks(supernet)
        assert first.shortcut is not None and third.shortcut is not None
        assert second.shortcut is fourth.shortcut is fifth.shortcut is None
        middles = [block.middle for block in bottlenecks(supernet)]
        inner, outer = supernet.layers[1], supernet.layers[2]
        assert isinstance(inner, ElasticConvLayer) and isinstance(outer, ElasticConvLayer)
        classifier = supernet.layers[-1]
        assert isinstance(classifier, ElasticLinearLayer)
        return [
            norm(inner.layer.conv.weight, outer.layer.conv.weight),
            norm(first.reduce.conv.weight, first.shortcut.conv.weight),
            norm(second.reduce.conv.weight, third.reduce.conv.weight, third.shortcut.conv.weight),
            norm(fourth.reduce.conv.weight, fifth.reduce.conv.weight, classifier.linear.weight),
            *(norm(middle.conv.weight) for middle in middles if isinstance(middle, ElasticConvBNAct)),
            *(norm(block.expand.conv.weight) for block in bottlenecks(supernet)),
        ]

    before = importances()
    assert [len(values) for values in before[:4]] == [16, 32, 64, 96]
    assert not any(is_descending(values) for values in before)
    supernet.sort_channels(micro_resnet.keep_largest({"width": 1, "expand_ratio": 1}))
    for new, old in zip(importances(), before, strict=True):
        tolerance = 1e-5 * float(old.max())
        assert (new.diff() <= tolerance).all()
        torch.testing.assert_close(new, old.sort(descending=True).values)


def test_streams_that_are_not_elastic_stay_in_order(
    micro_proxyless: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_proxyless, 4)
    names = [name for name in supernet.state_dict() if "project.bn" in name or "layer.bn" in name]
    before = {name: supernet.state_dict()[name].clone() for name in names}
    supernet.sort_channels(micro_proxyless.keep_largest({"expand_ratio": 1}))
    assert before and all(torch.equal(supernet.state_dict()[name], before[name]) for name in names)


def test_segments_keep_their_places() -> None:
    importance = torch.tensor([1.0, 3.0, 2.0, 9.0, 7.0, 8.0, 5.0])
    assert segment_order(importance, {3, 7}).tolist() == [1, 2, 0, 3, 5, 4, 6]
    assert segment_order(importance, set()).tolist() == [3, 5, 4, 6, 1, 2, 0]
    assert segment_order(torch.tensor([2.0, 2.0, 2.0]), set()).tolist() == [0, 1, 2]


RANKS = {"whole": {"rank": 1}, "split": {}}


@pytest.mark.parametrize("counts", RANKS.values(), ids=RANKS)
def test_sorting_keeps_trained_networks_with_ranks(
    counts: dict[str, int],
    micro_resnet_rank: StagedSpace,
    make_supernet: MakeSupernet,
    random_configs: DrawConfigs,
) -> None:
    trained = micro_resnet_rank.keep_largest({"width": 1, **counts})
    supernet = make_supernet(micro_resnet_rank, 1)
    configs = random_configs(trained, 8, 2)
    before = [logits(supernet, config) for config in configs]
    narrow = logits(supernet, micro_resnet_rank.smallest)
    supernet.sort_channels(trained)
    for config, expected in zip(configs, before, strict=True):
        assert relative_difference(logits(supernet, config), expected) <= 1e-4
    assert relative_difference(logits(supernet, micro_resnet_rank.smallest), narrow) > 1e-2


def test_the_first_channels_of_a_split_convolution_are_its_best_after_sorting(
    micro_resnet_rank: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_resnet_rank, 2)
    trained = micro_resnet_rank.keep_largest({"width": 1, "rank": 1})
    middles = [block.middle for block in bottlenecks(supernet)]
    supernet.sort_channels(trained)
    for index, middle in enumerate(middles):
        assert isinstance(middle, ElasticSplitConvBNAct)
        first, last = middle.conv.first.detach(), middle.conv.last.detach()
        # The second stage never uses more than half of the full rank, which is all that there is.
        assert len(first) == (96 if index < 2 else 72)
        expected = split_weights(composed_weight(first, last).double(), 8)
        found = composed_weight(first[:8], last[:, :8])
        torch.testing.assert_close(found, composed_weight(*expected).float(), rtol=0, atol=1e-4)
