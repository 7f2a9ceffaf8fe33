"""`GraphSupernet`: a user's network that computes every sub-network of its space."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.graph.capture import Example, arguments_of, tensors_in
from ofa.graph.elastic_modules import make_sizes_follow, skipping
from ofa.graph.execution import GraphFunction
from ofa.graph.extract import graph_module, own_class
from ofa.graph.importance import IMPORTANCES
from ofa.graph.network_source import NetworkSource
from ofa.graph.report import ConversionReport
from ofa.graph.rewrite import RewrittenGraph
from ofa.graph.selection import Selection
from ofa.graph.slicing import TensorSlices, reordered
from ofa.graph.space import GraphSpace
from ofa.graph.split_layers import sort_ranks
from ofa.graph.state import other_names, state_of
from ofa.space.estimator import Estimator
from ofa.space.plain import GeneConfig
from ofa.space.space import SearchSpace
from ofa.supernet.layer import segment_order
from ofa.supernet.protocol import AbstractSupernet


class GraphSupernet(AbstractSupernet[nn.Module]):
    """The user's own forward, or the graph captured from it, with sliced tensors.

    Parameters and buffers keep their names, after "model.". Which sub-network is computed is an argument of
    each call; the model that was given is unchanged.

    Attributes:
        space: the unrestricted space.
        model: a copy of the user's network that holds the full tensors.
        report: what the conversion made of the network; None for a supernet that was loaded.
        source: what makes the user's network; None for one that was given as a module.
    """

    space: GraphSpace
    report: ConversionReport | None = None
    source: NetworkSource | None = None

    def __init__(self, model: nn.Module, space: GraphSpace, graph: RewrittenGraph | None) -> None:
        """Copy the network.

        Args:
            model: the user's network.
            space: its space.
            graph: graph of the network; None for a network that was captured in parts.
        """
        super().__init__()
        self.space = space.unrestricted
        structure = self.space.structure
        self.model = copy.deepcopy(model)
        self._template = (copy.deepcopy(model).to("meta"),)  # No module of this one.
        self._kernel_sides = dict(self.space.kernel_sides)
        make_sizes_follow(
            self.model,
            {kernel.weight: kernel.side for kernel in structure.kernels},
            frozenset(structure.block_names),
        )
        self._graph_function = None if graph is None else GraphFunction(graph)
        # The own forward computes every sub-network unless some groups are bound to the graph.
        self._function = self._graph_function if structure.bound_groups else None
        shapes = {name: tuple(tensor.shape) for name, tensor in state_of(self.model).items()}
        self._slices = TensorSlices(
            structure.groups, shapes, other_names(self.model), frozenset(structure.copied_tensors)
        )
        self._matrix_keys = {
            weight: [f"{weight.replace('.', '/')}:{side}" for side in sides[1:]]
            for weight, sides in self._kernel_sides.items()
        }
        self.kernel_matrices = nn.ParameterDict(
            {
                key: nn.Parameter(torch.eye(side * side).to(state_of(self.model)[weight]))
                for weight, sides in self._kernel_sides.items()
                for key, side in zip(self._matrix_keys[weight], sides[1:], strict=True)
            }
        )

    @property
    def graph(self) -> RewrittenGraph | None:
        """The graph of the network, its sizes as inputs; None for a network that was captured in parts."""
        return None if self._graph_function is None else self._graph_function.rewritten

    @property
    def runs_graph(self) -> bool:
        """Whether the graph computes the sub-networks, rather than the network's own forward."""
        return self._function is not None

    @property
    def template(self) -> nn.Module:
        """The network as it was given, its tensors on the meta device."""
        return self._template[0]

    @override
    def forward(self, images: Example, config: GeneConfig) -> Any:
        """Return what the user's network returns, as sub-network `config`.

        Args:
            images: inputs of the user's network: one tensor, positional arguments, or keyword arguments.
            config: a network of the space.

        Raises:
            UserError: if the config is outside the space, or the images are not of its resolution.
        """
        self.space.genome(config)
        args, kwargs = arguments_of(images)
        self._check_resolution((args, kwargs), config)
        return self.run(args, kwargs, self.space.selection(config))

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], selection: Selection) -> Any:
        """Return the outputs for a selection, which need not be in the space."""
        state = state_of(self.model)
        tensors = self._slices.tensors(state, selection, self._matrices)
        if self._function is not None:
            return self._function(state | tensors, args, kwargs, selection, training=self.training)
        with skipping(selection.skipped):
            if not tensors:
                return self.model(*args, **kwargs)
            return torch.func.functional_call(self.model, tensors, args, dict(kwargs), tie_weights=False)

    @override
    def extract(self, config: GeneConfig, dropout: float = 0.0) -> nn.Module:
        """Return sub-network `config` with its own weights; see `AbstractSupernet.extract`.

        It is of the user's own class where the own forward of the network computes it, else a graph module.
        Dropout is that of the user's network; `dropout` has no effect.
        """
        self.space.genome(config)
        selection = self.space.selection(config)
        state = state_of(self.model)
        with torch.no_grad():
            tensors = state | self._slices.tensors(state, selection, self._matrices)
            network: nn.Module
            if self.keeps_class(config):
                weights = frozenset(kernel.weight for kernel in self.space.structure.kernels)
                network = own_class(self.template, tensors, selection, weights)
            else:
                assert self._function is not None
                network = graph_module(self._function.rewritten, self.template, tensors, selection)
        return network.train(self.training)

    @torch.no_grad()
    def insert(self, config: GeneConfig, network: nn.Module) -> None:
        """Take over the tensors of an extracted network, e.g. after training: the inverse of `extract`.

        All other units become zero, so that they count for nothing when units are sorted; blocks that the
        sub-network leaves out keep their weights.

        Args:
            config: the sub-network.
            network: what `extract` returned for it.

        Raises:
            ValueError: if the transforms of smaller kernels were trained: they cannot be inverted.
        """
        if any(not torch.equal(m, torch.eye(len(m)).to(m)) for m in self.kernel_matrices.values()):
            raise ValueError("The transforms of smaller kernels were trained; no network can be inserted.")
        state, new_state, positions = state_of(self.model), state_of(network), self.positions(config)
        for name, tensor in state.items():
            if name in new_state:
                value = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
                value.view(-1)[positions[name].reshape(-1)] = new_state[name].to(tensor).reshape(-1)
                tensor.copy_(value)

    def positions(self, config: GeneConfig) -> dict[str, Tensor]:
        """Return where each value of a sub-network stands in the full tensor of that name.

        Args:
            config: the sub-network; smaller kernels are crops, as their transforms do not count.

        Returns:
            Positions in the flattened full tensor, in the shape of the tensor of the sub-network, by name.
        """
        positions = {
            name: torch.arange(tensor.numel(), device=tensor.device).view(tensor.shape)
            for name, tensor in state_of(self.model).items()
        }
        return positions | self._slices.tensors(positions, self.space.selection(config))

    def keeps_class(self, config: GeneConfig) -> bool:
        """Return whether `extract` gives a network of the user's own class, rather than a graph module."""
        return self.space.keeps_class(config)

    @override
    @torch.no_grad()
    def sort_channels(self, trained_space: SearchSpace, importance: str = "l1") -> None:
        """Sort the units of all groups; see `AbstractSupernet.sort_channels`.

        The channels between split convolutions are put in the order of their singular values anew where the
        trained networks have one rank, which changes their outputs by rounding, and stay where they have
        several.
        """
        assert isinstance(trained_space, GraphSpace)
        state, importance_of = state_of(self.model), IMPORTANCES[importance]
        groups, orders = self.space.structure.groups, []
        for group in groups:
            counts = [int(n) for n in trained_space.allowed_values(group.gene) or (group.num_units,)]
            if group.kind == "rank":
                orders.append(np.arange(group.num_units))
                if len(counts) == 1:
                    sort_ranks(group, state, counts[0])
            else:
                orders.append(segment_order(importance_of(group, state), counts).cpu().numpy())
        for name, tensor in reordered(state, groups, orders).items():
            state[name].copy_(tensor)

    @property
    @override
    def importances(self) -> tuple[str, ...]:
        return tuple(IMPORTANCES)

    @property
    @override
    def classifier_parameters(self) -> tuple[str, ...]:
        names = () if self.source is None else self.source.classifier_names
        return tuple(f"model.{name}" for name in names)

    @property
    @override
    def can_freeze_batch_norm(self) -> bool:
        return not self.runs_graph

    @property
    @override
    def costs(self) -> Mapping[str, Estimator]:
        return space_costs(self.space)

    def _matrices(self, weight: str) -> Sequence[Tensor]:
        return [self.kernel_matrices[key] for key in self._matrix_keys.get(weight, ())]

    def _check_resolution(self, inputs: Any, config: GeneConfig) -> None:
        if len(self.space.genes[self.space.gene_index["resolution"]].choices) < 2:
            return
        for images in tensors_in(inputs):
            if images.dim() == 4 and images.shape[-1] != config.resolution:
                raise UserError(
                    f"images are {images.shape[-2]}x{images.shape[-1]}; the sub-network's resolution is "
                    f"{config.resolution}: resize them first."
                )
