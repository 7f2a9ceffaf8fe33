"""`adapted_space`: the space of a user's model for other classes or image channels, with its costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ofa.graph.costs import CostForms, Product
from ofa.graph.forms import Form
from ofa.graph.space import GraphSpace
from ofa.graph.structure import GraphStructure
from ofa.space.plain import GeneConfig

Shape = tuple[int, ...]
Factors = tuple[float, ...]
"""A constant factor at each resolution; see `Product`."""


def adapted_space(
    space: GraphSpace,
    config: GeneConfig,
    network: nn.Module,
    old_shapes: Mapping[str, Shape],
    *,
    in_channels: int,
    num_classes: int,
) -> GraphSpace:
    """Return the space of a model whose classifier or first convolutions were replaced, as in `network`.

    MACs and parameters are those of the new layers. So is the memory of the images and of what these layers
    return; other activations that have a channel per class or image channel count as before.

    Args:
        space: the space of the model as it was; without a restriction.
        config: a network of the space.
        network: the network of `config` with its new layers, in eval mode; see `adapt_to_images`.
        old_shapes: shapes of the network's tensors before, by name.
        in_channels: channels of the images.
        num_classes: classes of the images.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    names = [name for name, shape in shapes.items() if shape != old_shapes[name]]
    paths = {name.rpartition(".")[0] for name in names}
    classifiers = {name.rpartition(".")[0] for name in names if shapes[name][0] != old_shapes[name][0]}
    positions = _positions(network, paths, in_channels, space.allowed_resolutions)

    def product(name: str, shape: Shape, sign: float) -> Product:
        constant, forms, kernel = _sizes(space, config, name, shape)
        factors = (sign * constant,) * len(space.allowed_resolutions)
        return Product(factors, forms, kernel, _block(space.structure, name))

    # The products of the old layers have no names: they are taken off as they were counted.
    parameters = [
        product(name, shape, sign)
        for name in names
        for shape, sign in ((old_shapes[name], -1.0), (shapes[name], 1.0))
    ]
    macs = [
        replace(part, factors=_multiplied(part.factors, positions[name.rpartition(".")[0]]))
        for name in names
        if len(shapes[name]) > 1
        for part in (product(name, old_shapes[name], -1.0), product(name, shapes[name], 1.0))
    ]
    output_counts = [positions[path] for path in classifiers]
    resized = _resized(space, output_counts, in_channels=in_channels, num_classes=num_classes)
    costs = _with_activations(space.structure.costs, resized)
    costs = replace(costs, macs=(*costs.macs, *macs), parameters=(*costs.parameters, *parameters))
    structure = replace(space.structure, costs=costs)
    return replace(space, structure=structure, in_channels=in_channels, num_classes=num_classes)


def _sizes(
    space: GraphSpace, config: GeneConfig, name: str, shape: Shape
) -> tuple[float, tuple[Form, ...], str]:
    """Return the size of a parameter of all networks: constant factor, forms, and its name if as a kernel.

    Args:
        space: the space.
        config: a network of the space.
        name: name of the parameter.
        shape: its shape in that network.
    """
    counts, is_kernel = space.selection(config).counts, name in space.kernel_sides
    constant, forms = 1.0, []
    for axis, size in enumerate(shape[:2] if is_kernel else shape):
        terms = tuple(
            (index, group.axes[name, axis].shape[1])
            for index, group in enumerate(space.structure.groups)
            if (name, axis) in group.axes
        )
        fixed_size = size - sum(factor * counts[index] for index, factor in terms)
        if terms:
            forms.append(Form(fixed_size, terms))
        else:
            constant *= fixed_size
    return constant, tuple(forms), name if is_kernel else ""


def _block(structure: GraphStructure, name: str) -> str:
    return next((block for block in structure.block_names if name.startswith(f"{block}.")), "")


@torch.inference_mode()
def _positions(
    network: nn.Module, paths: Collection[str], in_channels: int, sides: Sequence[int]
) -> dict[str, Factors]:
    """Return how often layers apply their weights to an image, by name, at each side of the images."""
    parameter = next(network.parameters())
    counts: dict[str, list[float]] = {path: [] for path in paths}

    def counter(path: str) -> Callable[[nn.Module, object, Tensor], None]:
        def count(module: nn.Module, _: object, output: Tensor) -> None:
            assert isinstance(module.weight, Tensor)
            counts[path][-1] += output.numel() / len(module.weight)

        return count

    handles = [network.get_submodule(path).register_forward_hook(counter(path)) for path in paths]
    for side in sides:
        for values in counts.values():
            values.append(0.0)
        network(parameter.new_zeros(1, in_channels, side, side))
    for handle in handles:
        handle.remove()
    return {path: tuple(values) for path, values in counts.items()}


def _multiplied(factors: Factors, others: Factors) -> Factors:
    return tuple(factor * other for factor, other in zip(factors, others, strict=True))


def _resized(
    space: GraphSpace, output_counts: Sequence[Factors], *, in_channels: int, num_classes: int
) -> dict[Factors, Factors]:
    """Return the new numbers of elements of images, and of outputs of classifiers, by the old ones.

    Args:
        space: the space as it was.
        output_counts: numbers of elements per class that classifiers return.
        in_channels: channels of the new images.
        num_classes: number of the new classes.
    """
    areas = [float(side**2) for side in space.allowed_resolutions]
    ones = (1.0,) * len(areas)
    images = {tuple(space.in_channels * area for area in areas): tuple(in_channels * area for area in areas)}
    outputs = {
        tuple(space.num_classes * count for count in counts): tuple(num_classes * count for count in counts)
        for counts in (ones, *output_counts)
    }
    return outputs | images


def _with_activations(costs: CostForms, resized: Mapping[Factors, Factors]) -> CostForms:
    """Return costs with other numbers of elements of the activations that no gene changes."""
    storages = tuple(
        replace(storage, elements=replace(storage.elements, factors=resized[storage.elements.factors]))
        if not storage.elements.forms and storage.elements.factors in resized
        else storage
        for storage in costs.storages
    )
    return replace(costs, storages=storages)
