"""Tests of ofa.supernet and the elastic operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa.architecture.common_layers import ConvSpec, LinearSpec, PoolSpec
from ofa.architecture.cost import network_cost
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import lower, lower_slots
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.common.errors import UserError
from ofa.modules.static import static_layer
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.blocks import ELASTIC_LAYERS, elastic_layer
from ofa.supernet.slicing import transform_kernel
from ofa.supernet.supernet import Supernet, build_supernet

MakeSupernet = Callable[[StagedSpace, int], Supernet]
DrawConfigs = Callable[[StagedSpace, int, int], list[SubnetConfig]]


def images_for(space: StagedSpace, config: SubnetConfig, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, space.in_channels, config.resolution, config.resolution)
    return torch.randn(shape, generator=generator)


def used_elements(supernet: Supernet, config: SubnetConfig) -> dict[str, Tensor]:
    """Return a mask of the elements that `config` uses, per parameter of the layers that it has."""
    sizes: dict[str, Tensor] = dict(supernet.named_parameters())
    masks: dict[str, Tensor] = {}

    def use(name: str, *channels: int) -> Tensor:
        masks[name] = torch.zeros_like(sizes[name], dtype=torch.bool)
        masks[name][tuple(slice(count) for count in channels)] = True
        return masks[name]

    for index, spec in enumerate(lower_slots(supernet.space, config)):
        layer = f"layers.{index}"
        if isinstance(spec, ConvSpec):
            use(f"{layer}.layer.conv.weight", spec.out_channels, spec.in_channels)
            if spec.batch_norm:
                use(f"{layer}.layer.bn.weight", spec.out_channels)
                use(f"{layer}.layer.bn.bias", spec.out_channels)
        elif isinstance(spec, BottleneckSpec):
            source, mid, out = spec.in_channels, spec.mid_channels, spec.out_channels
            parts = {"reduce": (mid, source), "middle": (mid, mid), "expand": (out, mid)}
            if f"{layer}.middle.conv.first" in sizes:
                rank = spec.rank or len(sizes[f"{layer}.middle.conv.first"])
                use(f"{layer}.middle.conv.first", rank, mid)
                use(f"{layer}.middle.conv.last", mid, rank)
                use(f"{layer}.middle.bn.weight", mid)
                use(f"{layer}.middle.bn.bias", mid)
                del parts["middle"]
            if spec.project:
                parts["shortcut"] = (out, source)
            for part, (outputs, inputs) in parts.items():
                use(f"{layer}.{part}.conv.weight", outputs, inputs)
                use(f"{layer}.{part}.bn.weight", outputs)
                use(f"{layer}.{part}.bn.bias", outputs)
        elif isinstance(spec, LinearSpec):
            use(f"{layer}.linear.weight", spec.out_channels, spec.in_channels)
            use(f"{layer}.linear.bias", spec.out_channels)
        elif isinstance(spec, MBConvSpec):
            mid, hidden = spec.mid_channels, spec.se_channels
            bns = ["depthwise_bn"]
            if spec.expand:
                use(f"{layer}.expand.conv.weight", mid, spec.in_channels)
                bns.append("expand.bn")
            for bn in bns:
                use(f"{layer}.{bn}.weight", mid)
                use(f"{layer}.{bn}.bias", mid)
            if spec.squeeze_excite:
                use(f"{layer}.squeeze_excite.reduce.weight", hidden, mid)
                use(f"{layer}.squeeze_excite.reduce.bias", hidden)
                use(f"{layer}.squeeze_excite.expand.weight", mid, hidden)
                use(f"{layer}.squeeze_excite.expand.bias", mid)
            use(f"{layer}.project.conv.weight", spec.out_channels, mid)
            use(f"{layer}.project.bn.weight", spec.out_channels)
            use(f"{layer}.project.bn.bias", spec.out_channels)
            use_kernel(use, f"{layer}.depthwise", sizes, spec)
    return masks


def use_kernel(use: Callable[..., Tensor], name: str, sizes: dict[str, Tensor], spec: MBConvSpec) -> None:
    """Mark what a kernel of the block's size is made of: crop after crop, and the matrices on the way."""
    largest = sizes[f"{name}.weight"].shape[-1]
    chain = [side for side in (5, 3) if spec.kernel_size <= side < largest]
    mask = use(f"{name}.weight", spec.mid_channels)
    if chain:
        border = (largest - chain[0]) // 2
        mask[..., :border, :] = mask[..., -border:, :] = False
        mask[..., :, :border] = mask[..., :, -border:] = False
    for side, following in zip(chain, [*chain[1:], *chain[-1:]], strict=True):
        rows = torch.zeros(side, side, dtype=torch.bool)
        border = (side - following) // 2
        rows[border : side - border, border : side - border] = True
        mask = use(f"{name}.matrices.{side}")
        mask[~rows.flatten()] = False


@pytest.mark.parametrize(
    "name", ["micro_space", "small_space", "micro_proxyless", "micro_resnet", "micro_resnet_rank"]
)
def test_exactly_the_used_parameters_get_a_gradient(
    name: str, request: pytest.FixtureRequest, make_supernet: MakeSupernet, random_configs: DrawConfigs
) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    supernet = make_supernet(space, 0).train()
    for config in random_configs(space, 12, 1):
        supernet.zero_grad(set_to_none=True)
        supernet(images_for(space, config, 6, 2), config).square().mean().backward()
        masks = used_elements(supernet, config)
        gradients = {n: p.grad for n, p in supernet.named_parameters() if p.grad is not None}
        assert set(gradients) == set(masks)
        for parameter, gradient in gradients.items():
            assert not gradient[~masks[parameter]].any(), parameter
            assert gradient[masks[parameter]].any(), parameter


def test_largest_network_uses_every_parameter_but_the_matrices(small_space: StagedSpace) -> None:
    supernet = build_supernet(small_space, 0)
    config = small_space.largest
    supernet(images_for(small_space, config, 4, 0), config).square().mean().backward()
    without = {name for name, parameter in supernet.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in supernet.named_parameters() if "matrices" in name}


def test_calls_leave_no_state(small_space: StagedSpace, make_supernet: MakeSupernet) -> None:
    supernet = make_supernet(small_space, 1)
    small, large = small_space.smallest, small_space.largest
    images = images_for(small_space, large, 2, 0)
    with torch.no_grad():
        before = supernet(images, large)
        supernet(images_for(small_space, small, 2, 0), small)
        after = supernet(images, large)
    assert torch.equal(before, after) and before.shape == (2, 10)


def test_the_configs_choices_change_the_output(small_space: StagedSpace, make_supernet: MakeSupernet) -> None:
    supernet = make_supernet(small_space, 2)
    images = images_for(small_space, small_space.largest, 2, 0)
    spaces = [small_space.keep_largest({kind: 1}) for kind in ("depth", "kernel_size", "expand_ratio")]
    configs = {dataclasses.replace(space.smallest, resolution=32) for space in spaces}
    outputs = [supernet(images, config) for config in (*configs, small_space.largest)]
    assert len(configs) == 3
    assert all(not torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_new_supernet_has_identity_matrices_so_small_kernels_are_centre_crops() -> None:
    weight = torch.randn(4, 1, 7, 7)
    matrices = [torch.eye(25), torch.eye(9)]
    assert torch.equal(transform_kernel(weight, matrices, 7), weight)
    assert torch.equal(transform_kernel(weight, matrices, 5), weight[:, :, 1:6, 1:6])
    assert torch.equal(transform_kernel(weight, matrices, 3), weight[:, :, 2:5, 2:5])


def test_kernel_transform_chains_through_the_sizes_between() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 1, 7, 7, generator=generator, dtype=torch.float64)
    to5, to3 = (torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (25, 9))
    for channel in range(2):
        five = (to5 @ weight[channel, 0, 1:6, 1:6].flatten()).view(5, 5)
        three = (to3 @ five[1:4, 1:4].flatten()).view(3, 3)
        torch.testing.assert_close(transform_kernel(weight, [to5, to3], 5)[channel, 0], five)
        torch.testing.assert_close(transform_kernel(weight, [to5, to3], 3)[channel, 0], three)


@pytest.mark.parametrize("kind", ["width", "stem_depth", "depth", "expand_ratio"])
def test_every_choice_of_a_resnet_changes_the_output(
    kind: str, micro_resnet: StagedSpace, make_supernet: MakeSupernet
) -> None:
    supernet = make_supernet(micro_resnet, 2)
    largest = micro_resnet.genome(micro_resnet.largest)
    images = images_for(micro_resnet, micro_resnet.largest, 2, 0)
    outputs = [supernet(images, micro_resnet.largest)]
    for column, gene in enumerate(micro_resnet.genes):
        if gene.kind == kind:
            genome = largest.copy()
            genome[column] = 0
            outputs.append(supernet(images, micro_resnet.config(micro_resnet.canonical(genome[None])[0])))
    assert len(outputs) == 1 + {"width": 4, "stem_depth": 1, "depth": 2, "expand_ratio": 5}[kind]
    assert all(not torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_training_updates_only_the_used_running_statistics(micro_space: StagedSpace) -> None:
    supernet = build_supernet(micro_space, 3).train()
    config = micro_space.smallest
    supernet(images_for(micro_space, config, 4, 0), config)
    for index, spec in enumerate(lower_slots(micro_space, config)):
        for name, buffer in supernet.layers[index].named_buffers():
            initial = 1.0 if name.endswith("running_var") else 0.0
            used = 0 if spec is None else len(buffer)
            if isinstance(spec, MBConvSpec) and not name.startswith("project"):
                used = spec.mid_channels
            assert (buffer[used:] == initial).all(), name
            assert (buffer[:used] != initial).all(), name


def test_initial_weights_are_a_function_of_the_seed_alone(micro_space: StagedSpace) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_supernet(micro_space, 7).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = build_supernet(micro_space, 7).state_dict()
    other = build_supernet(micro_space, 8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_dropout_acts_in_training_mode_only(micro_space: StagedSpace) -> None:
    supernet = build_supernet(micro_space, 9, dropout=0.5)
    config = micro_space.largest
    images = images_for(micro_space, config, 8, 0)
    assert not torch.equal(supernet(images, config), supernet(images, config))
    supernet.eval()
    assert torch.equal(supernet(images, config), supernet(images, config))


def test_supernet_of_a_restricted_space_holds_the_whole_one(micro_space: StagedSpace) -> None:
    restricted = micro_space.restrict({"depth": (1,), "kernel_size": (3,)})
    supernet = build_supernet(restricted, 0)
    assert supernet.space == micro_space
    largest = micro_space.largest
    assert supernet(images_for(micro_space, largest, 2, 0), largest).shape == (2, 5)


def test_wrong_images_and_configs_are_user_errors(micro_space: StagedSpace) -> None:
    supernet = build_supernet(micro_space, 0)
    config = micro_space.largest
    with pytest.raises(UserError, match="images are 8x12; the sub-network's resolution is 12"):
        supernet(torch.zeros(1, 2, 8, 12), config)
    outside = dataclasses.replace(config, resolution=16)
    with pytest.raises(UserError, match=r"resolution is 16; space 'micro' has the choices 8, 12\."):
        supernet(torch.zeros(1, 2, 16, 16), outside)


def test_the_costs_are_those_of_the_layers(
    make_supernet: MakeSupernet, micro_space: StagedSpace, random_configs: DrawConfigs
) -> None:
    supernet, configs = make_supernet(micro_space, 0), random_configs(micro_space, 20, 1)
    genomes = micro_space.genomes(configs)
    for name, estimator in supernet.costs.items():
        expected = [getattr(network_cost(lower(micro_space, config)), name) for config in configs]
        np.testing.assert_array_equal(estimator(genomes), expected)
    assert set(supernet.costs) == {"macs", "parameters", "peak_activation_bytes"}


def test_a_layer_that_is_not_elastic_is_an_error(
    make_supernet: MakeSupernet, micro_space: StagedSpace
) -> None:
    supernet = make_supernet(micro_space, 0)
    supernet.layers[0] = nn.Identity()
    with pytest.raises(AssertionError):
        supernet.active_layers(micro_space.largest)


def kinds_of_layers() -> list[type[LayerSpec]]:
    return [kind for kind in LayerSpec.__subclasses__() if kind.__module__.startswith("ofa.")]


@pytest.mark.parametrize("kind", kinds_of_layers(), ids=lambda kind: kind.__name__)
def test_every_kind_of_layer_is_elastic_and_static(kind: type[LayerSpec]) -> None:
    assert kind in ELASTIC_LAYERS
    assert kind in static_layer.registry


def test_a_layer_of_no_elastic_kind_is_named() -> None:
    @dataclass(frozen=True)
    class MineSpec(PoolSpec):
        pass

    with pytest.raises(AssertionError, match="no elastic layer for MineSpec"):
        elastic_layer([MineSpec(4, 8, 8)], 0.0)
