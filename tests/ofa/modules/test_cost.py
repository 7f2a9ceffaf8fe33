"""MACs and parameters of any module, beside the arithmetic on layers and a count by hand."""

from __future__ import annotations

import pytest
from any_modules import two_branches

from ofa.architecture.cost import network_cost
from ofa.architecture.lowering import lower
from ofa.modules.cost import module_cost
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace


@pytest.mark.parametrize("name", ["micro_space", "micro_proxyless", "micro_resnet"])
def test_a_static_network_costs_what_its_layers_do(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    for config in (space.smallest, space.largest):
        network = StaticNetwork(lower(space, config)).eval()
        counted, expected = module_cost(network, network.image_shape), network_cost(network.specs)
        assert (counted.macs, counted.parameters) == (expected.macs, expected.parameters)


def test_a_shared_layer_has_its_parameters_once_and_works_twice() -> None:
    cost = module_cost(two_branches(), (1, 10, 14))
    assert cost.parameters == (6 * 9 + 6) + (6 + 6) + 36 + (24 + 4)
    assert cost.macs == 140 * (6 * 9 + 6) + 2 * 36 + 24
