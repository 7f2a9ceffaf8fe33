"""What must hold of every converted network: one test per property, over all trap networks.

Outputs are compared where gradients are recorded: without, attention takes fused paths of its own, which sum
in another order and which PyTorch's counter of operations does not know.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_trap import TRAPS, example_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ofa.graph.capture import tensors_in
from ofa.graph.convert import NothingElasticError, make_elastic
from ofa.graph.execution import GraphFunction
from ofa.graph.state import state_of
from ofa.graph.supernet import GraphSupernet
from ofa.graph.supernet_file import load_graph_supernet, save_graph_supernet
from ofa.space.plain import GeneConfig

# Networks of which nothing may vary.
RIGID = {"PythonBranch"}
NAMES = sorted(set(TRAPS) - RIGID)


def network_of(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    network = TRAPS[name]().eval()
    return network, example_of(network)


@cache
def supernet_of(name: str) -> GraphSupernet:
    network, args = network_of(name)
    return make_elastic(network, args, widths=(0.25, 0.5, 1.0), divisor=2, min_channels=2).eval()


def configs_of(supernet: GraphSupernet) -> list[GeneConfig]:
    space = supernet.space
    drawn = space.sample(3, np.random.default_rng(0))
    return [space.largest, space.smallest, *(space.config(genome) for genome in drawn)]


def equal(first: Any, second: Any) -> bool:
    pairs = zip(tensors_in(first), tensors_in(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def close(first: Any, second: Any) -> bool:
    pairs = zip(tensors_in(first), tensors_in(second), strict=True)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max())) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_network_is_the_user_s(name: str) -> None:
    network, args = network_of(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    kind, keys = type(network), set(network.__dict__)
    supernet = supernet_of(name)
    assert equal(supernet(args, supernet.space.largest), network(*args))
    assert type(network) is kind and set(network.__dict__) == keys
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", NAMES)
def test_extracted_networks_compute_what_the_supernet_does(name: str) -> None:
    _, args = network_of(name)
    supernet = supernet_of(name)
    for config in configs_of(supernet):
        extracted = supernet.extract(config)
        assert equal(extracted(*args), supernet(args, config))
        own = set(supernet.template.state_dict())
        skipped = tuple(f"{block}." for block in supernet.space.selection(config).skipped)
        expected = {key for key in own if not (skipped and key.startswith(skipped))}
        assert set(extracted.state_dict()) == expected
        if supernet.keeps_class(config):
            assert type(extracted) is type(supernet.template)


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_computes_every_sub_network_at_other_batches(name: str) -> None:
    _, args = network_of(name)
    supernet = supernet_of(name)
    if supernet.graph is None:
        pytest.skip("captured in parts")
    if supernet.graph.has_free_batch:
        args = pytree.tree_map(lambda leaf: torch.cat([leaf, leaf[:1]]), args)
    for config in configs_of(supernet):
        selection = supernet.space.selection(config)
        tensors = {**state_of(supernet.model), **dict(supernet.extract(config).state_dict())}
        found = GraphFunction(supernet.graph)(tensors, args, {}, selection, training=False)
        assert close(found, supernet(args, config))


@pytest.mark.parametrize("name", NAMES)
def test_sorting_keeps_the_function(name: str) -> None:
    _, args = network_of(name)
    supernet = copy.deepcopy(supernet_of(name))
    space = supernet.space
    only_largest = space.only_largest
    with torch.no_grad():
        before = supernet(args, space.largest)
        supernet.sort_channels(only_largest)
        assert close(supernet(args, space.largest), before)


# How many examples it computes depends on their values.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "Masked"])
def test_costs_are_those_of_the_extracted_networks(name: str) -> None:
    _, args = network_of(name)
    supernet = supernet_of(name)
    genomes = supernet.space.genomes(configs_of(supernet))
    macs, parameters = (supernet.costs[cost](genomes) for cost in ("macs", "parameters"))
    batch = len(tensors_in(args)[0])
    for index, config in enumerate(configs_of(supernet)):
        extracted = supernet.extract(config)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            extracted(*args)
        assert macs[index] == pytest.approx(counter.get_total_flops() / 2 / batch)
        assert parameters[index] == sum(parameter.numel() for parameter in extracted.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_units_that_are_left_out_get_no_gradient(name: str) -> None:
    _, args = network_of(name)
    supernet = copy.deepcopy(supernet_of(name)).train()
    config = supernet.space.smallest
    selection = supernet.space.selection(config)
    outputs = [out for out in tensors_in(supernet(args, config)) if out.is_floating_point()]
    torch.autograd.backward([out.square().mean() for out in outputs])
    parameters = dict(supernet.model.named_parameters(remove_duplicate=False))
    for group, count in zip(supernet.space.structure.groups, selection.counts, strict=True):
        for (key, axis), indices in group.axes.items():
            gradient = parameters[key].grad if key in parameters else None
            if gradient is not None:
                unused = torch.from_numpy(indices[count:].ravel())
                assert not gradient.index_select(axis, unused).any()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_largest_network_are_the_user_s(name: str) -> None:
    network, args = network_of(name)
    supernet = copy.deepcopy(supernet_of(name))

    def gradients(module: nn.Module, outputs: Any) -> dict[str, Tensor]:
        tensors = [out for out in tensors_in(outputs) if out.is_floating_point()]
        torch.autograd.backward([out.square().mean() for out in tensors])
        return {key: p.grad for key, p in module.named_parameters() if p.grad is not None}

    network.train()
    supernet.train()
    expected = gradients(network, network(*args))
    found = gradients(supernet.model, supernet(args, supernet.space.largest))
    assert set(found) == set(expected)
    assert all(torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-6) for key in expected)
    buffers = dict(network.named_buffers())
    assert all(torch.allclose(b.float(), buffers[key].float()) for key, b in supernet.model.named_buffers())


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_supernet_needs_no_capture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, args = network_of(name)
    supernet = supernet_of(name)
    save_graph_supernet(tmp_path / "supernet.pt", supernet)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr(torch.export, "export", fail)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    loaded = load_graph_supernet(tmp_path / "supernet.pt", network)
    assert loaded.space == supernet.space
    has_saved_graph = supernet.graph is not None and not supernet.graph.modules
    assert (loaded.graph is not None, loaded.runs_graph) == (has_saved_graph, supernet.runs_graph)
    for config in configs_of(supernet):
        assert equal(loaded(args, config), supernet(args, config))
        assert equal(loaded.extract(config)(*args), supernet(args, config))


@pytest.mark.parametrize("name", sorted(RIGID))
def test_a_rigid_network_says_why(name: str) -> None:
    network, args = network_of(name)
    with pytest.raises(NothingElasticError, match="branches on values of tensors"):
        make_elastic(network, args, divisor=2, min_channels=2)
