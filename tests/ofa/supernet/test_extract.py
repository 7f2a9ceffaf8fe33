"""Tests of ofa.supernet.extract: a sub-network computes the same inside and outside the supernet."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ofa.architecture.lowering import lower
from ofa.common.errors import UserError
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet, build_supernet

MakeSupernet = Callable[[StagedSpace, int], Supernet]
DrawConfigs = Callable[[StagedSpace, int, int], list[SubnetConfig]]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def images_for(space: StagedSpace, config: SubnetConfig) -> Tensor:
    generator = torch.Generator().manual_seed(config.resolution)
    return torch.randn(3, space.in_channels, config.resolution, config.resolution, generator=generator)


def saved_and_loaded(source: nn.Module, target: nn.Module) -> None:
    """Send the weights of `source` through a file into `target`, which may be on the meta device."""
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True), assign=True)


@pytest.mark.parametrize("images_format", FORMATS)
@pytest.mark.parametrize("weights_format", FORMATS)
@torch.no_grad()
def test_extracted_network_is_bit_equal(
    images_format: str,
    weights_format: str,
    tiny_space: StagedSpace,
    make_supernet: MakeSupernet,
    random_configs: DrawConfigs,
) -> None:
    supernet = make_supernet(tiny_space, 0).to(memory_format=FORMATS[weights_format])
    configs = random_configs(tiny_space, 50, 2)
    assert len(configs) == 52
    for config in configs:
        images = images_for(tiny_space, config).contiguous(memory_format=FORMATS[images_format])
        expected = supernet(images, config)
        assert expected.abs().max() > 0.1
        assert torch.equal(supernet.extract(config)(images), expected), str(config)


@pytest.mark.parametrize("name", ["micro_proxyless", "micro_resnet", "micro_resnet_rank"])
@pytest.mark.parametrize("images_format", FORMATS)
@pytest.mark.parametrize("weights_format", FORMATS)
@torch.no_grad()
def test_extracted_network_of_other_families_is_bit_equal(
    images_format: str,
    weights_format: str,
    name: str,
    request: pytest.FixtureRequest,
    make_supernet: MakeSupernet,
    random_configs: DrawConfigs,
) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    supernet = make_supernet(space, 0).to(memory_format=FORMATS[weights_format])
    for config in random_configs(space, 50, 2):
        images = images_for(space, config).contiguous(memory_format=FORMATS[images_format])
        expected = supernet(images, config)
        assert expected.abs().max() > 0.1
        assert torch.equal(supernet.extract(config)(images), expected), str(config)


@torch.no_grad()
def test_bit_equal_after_save_and_load_of_either(
    tiny_space: StagedSpace, make_supernet: MakeSupernet, random_configs: DrawConfigs
) -> None:
    supernet = make_supernet(tiny_space, 0)
    loaded_supernet = build_supernet(tiny_space, 1).eval()
    saved_and_loaded(supernet, loaded_supernet)
    for config in random_configs(tiny_space, 50, 3):
        images = images_for(tiny_space, config)
        expected = supernet(images, config)
        with torch.device("meta"):
            loaded = StaticNetwork(lower(tiny_space, config)).eval()
        saved_and_loaded(supernet.extract(config), loaded)
        assert torch.equal(loaded(images), expected), str(config)
        assert torch.equal(loaded_supernet.extract(config)(images), expected), str(config)


def test_extraction_keeps_mode_and_dtype_and_gives_trainable_weights(
    micro_space: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_space, 3).double()
    config = micro_space.smallest
    images = images_for(micro_space, config).double()
    network = supernet.extract(config)
    assert torch.equal(network(images), supernet(images, config))
    assert not any(module.training for module in network.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in network.parameters())
    supernet.train()
    assert all(module.training for module in supernet.extract(config).modules())


def test_extracted_weights_are_its_own(micro_space: StagedSpace, make_supernet: MakeSupernet) -> None:
    supernet = make_supernet(micro_space, 4)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    network = supernet.extract(micro_space.largest)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_extracted_network_trains(micro_space: StagedSpace, make_supernet: MakeSupernet) -> None:
    config = micro_space.largest
    network = make_supernet(micro_space, 5).extract(config, dropout=0.5).train()
    network(images_for(micro_space, config)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    (dropout,) = (module for module in network.modules() if isinstance(module, nn.Dropout))
    assert dropout.p == 0.5


def test_config_outside_the_space_is_a_user_error(micro_space: StagedSpace, tiny_space: StagedSpace) -> None:
    with pytest.raises(UserError, match="The sub-network has 3 stages; space 'micro' has 2"):
        build_supernet(micro_space, 0).extract(tiny_space.largest)
