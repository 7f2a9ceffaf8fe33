"""Tests of ofa.evaluation.recalibrate: statistics against a float64 two-pass computation over all images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

MakeSupernet = Callable[[StagedSpace, int], Supernet]


def batches_of(network: StaticNetwork, sizes: tuple[int, ...]) -> list[Tensor]:
    """Images whose mean and scale differ from batch to batch."""
    spec = network.specs[0]
    generator = torch.Generator().manual_seed(0)
    shape = (spec.in_channels, spec.input_size, spec.input_size)
    return [
        i - 1 + (1 + i) * torch.randn((size, *shape), generator=generator) for i, size in enumerate(sizes)
    ]


def batchnorms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_statistics_are_mean_and_population_variance_over_all_images(
    small_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    network = make_supernet(small_space, 0).extract(small_space.largest)
    layers = batchnorms(network)
    inputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    handles = [
        layer.register_forward_pre_hook(lambda module, args: inputs[module].append(args[0].double().clone()))
        for layer in layers
    ]
    recalibrate_batchnorm(network, batches_of(network, (7, 2, 16)))
    for handle in handles:
        handle.remove()
    for layer in layers:
        # All values of a channel: (images * pixels, channels).
        values = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in inputs[layer]])
        assert len(inputs[layer]) == 3
        mean = values.sum(0) / len(values)
        variance = ((values - mean) ** 2).sum(0) / len(values)
        found_mean, found_variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        # A mean may lie near zero, so its error is measured against the spread where that is larger.
        scale = torch.maximum(mean.abs(), variance.sqrt())
        assert ((found_mean.double() - mean).abs() / scale).max() <= 1e-5
        assert ((found_variance.double() - variance).abs() / variance).max() <= 1e-5


def test_recalibrated_network_in_eval_mode_does_what_batch_statistics_did(
    micro_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    network = make_supernet(micro_space, 1).extract(micro_space.largest)
    (images,) = batches_of(network, (32,))
    before = network(images)
    recalibrate_batchnorm(network, [images])
    after = network(images)
    expected = network.train()(images)
    assert not torch.allclose(before, expected, rtol=0.1)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)


def test_supernet_weights_and_mixed_modes_are_left_alone(
    micro_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_space, 2)
    supernet_before = state_of(supernet)
    network = supernet.extract(micro_space.largest, dropout=0.5)
    for index, module in enumerate(network.modules()):
        module.training = index % 3 == 0
    for index, layer in enumerate(batchnorms(network)):
        layer.momentum = 0.1 * index
    modes = [module.training for module in network.modules()]
    momenta = [layer.momentum for layer in batchnorms(network)]
    before = state_of(network)
    recalibrate_batchnorm(network, batches_of(network, (8, 8)))
    assert [module.training for module in network.modules()] == modes and len(set(modes)) == 2
    assert [layer.momentum for layer in batchnorms(network)] == momenta
    assert equal_states(state_of(supernet), supernet_before)
    after = state_of(network)
    for name in after:
        statistics = name.endswith(("running_mean", "running_var"))
        assert torch.equal(after[name], before[name]) is not statistics, name
    assert not any(layer._forward_hooks for layer in batchnorms(network))
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_dropout_is_off_while_statistics_are_taken(
    micro_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_space, 3)
    states = []
    for dropout in (0.0, 0.9):
        network = supernet.extract(micro_space.largest, dropout).train()
        recalibrate_batchnorm(network, batches_of(network, (8,)))
        states.append(state_of(network))
    assert equal_states(*states)


class LoaderError(Exception):
    pass


@pytest.mark.parametrize("training", [True, False])
def test_a_loader_that_raises_midway_changes_nothing(
    training: bool, micro_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    network = make_supernet(micro_space, 4).extract(micro_space.largest).train(training)
    for layer in batchnorms(network):
        layer.momentum = 0.25
    batchnorms(network)[1].train(not training)
    modes = [module.training for module in network.modules()]
    before = state_of(network)

    def loader() -> Iterator[Tensor]:
        yield from batches_of(network, (8, 8))
        raise LoaderError

    with pytest.raises(LoaderError):
        recalibrate_batchnorm(network, loader())
    assert equal_states(state_of(network), before)
    assert [module.training for module in network.modules()] == modes
    assert {layer.momentum for layer in batchnorms(network)} == {0.25}
    assert not any(layer._forward_hooks for layer in batchnorms(network))


def test_no_batch_is_a_user_error(micro_space: StagedSpace, make_supernet: MakeSupernet) -> None:
    network = make_supernet(micro_space, 5).extract(micro_space.largest)
    before = state_of(network)
    with pytest.raises(UserError, match="No calibration images were given"):
        recalibrate_batchnorm(network, [])
    assert equal_states(state_of(network), before)


def test_a_batch_with_one_value_per_channel_is_a_user_error() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    before = state_of(network)
    with pytest.raises(UserError):
        recalibrate_batchnorm(network, [torch.zeros(1, 1, 1, 1)])
    assert equal_states(state_of(network), before)


def test_a_network_without_batch_norm_is_fine() -> None:
    recalibrate_batchnorm(nn.Conv2d(1, 2, 1), [torch.zeros(1, 1, 4, 4)])


@pytest.mark.parametrize("images_format", [torch.contiguous_format, torch.channels_last])
def test_many_values_of_a_large_mean_lose_no_digits(images_format: torch.memory_format) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3))
    generator = torch.Generator().manual_seed(0)
    images = 5 + torch.randn(64, 3, 80, 80, generator=generator)
    recalibrate_batchnorm(network, [images.contiguous(memory_format=images_format)])
    values = images.double().transpose(0, 1).flatten(1)
    (layer,) = batchnorms(network)
    # In channels-last format, PyTorch's own statistics are wrong by 5e-5 here.
    mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
    torch.testing.assert_close(mean.double(), values.mean(1), atol=0, rtol=3e-7)
    torch.testing.assert_close(variance.double(), values.var(1, correction=0), atol=0, rtol=3e-7)
