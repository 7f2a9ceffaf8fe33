"""`GraphTracer`: the shapes of all tensors of a sub-network, and the sub-network as a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ofa.common.errors import UserError
from ofa.graph.execution import size_of, without_blocks
from ofa.graph.programs import GraphProgram, program_of
from ofa.graph.rewrite import RewrittenGraph
from ofa.graph.selection import Selection
from ofa.graph.slicing import TensorSlices
from ofa.graph.space import GraphSpace
from ofa.graph.state import other_names, state_of
from ofa.space.plain import GeneConfig

Values = Mapping[fx.Node, Any]
"""What each node of a graph is in a sub-network: a tensor on the meta device, or a number."""


class GraphTracer:
    """Runs the graph of a network on tensors without data.

    Attributes:
        graph: the graph of the whole network.
        space: its space.
    """

    def __init__(self, graph: RewrittenGraph, space: GraphSpace, template: nn.Module, batch: int) -> None:
        """Take a graph.

        Args:
            graph: graph of the network.
            space: its space.
            template: the network, its tensors on the meta device.
            batch: number of images.

        Raises:
            UserError: if the network reads other than one tensor of images, or runs with another batch only.
        """
        self.graph, self.space = graph, space
        self._image_shape = _image_shape(graph, batch)
        self._state = state_of(template)
        shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}
        self._slices = TensorSlices(space.structure.groups, shapes, other_names(template))

    @property
    def network_input(self) -> fx.Node:
        """The node of the images."""
        return _placeholders(self.graph.graph)[-3]

    def image_shape(self, resolution: int) -> tuple[int, int, int]:
        """Return channels, height and width of an image whose width is `resolution`."""
        channels, height, width = self._image_shape[1:]
        return channels, round(height * resolution / width), resolution

    def values(self, config: GeneConfig) -> Values:
        """Return what the nodes of the graph are in a sub-network; blocks that it leaves out are run, too.

        Raises:
            UserError: if the graph does not run at the sub-network's resolution.
        """
        return self._trace(self.graph.graph, self.space.selection(config), config.resolution)

    def network(self, config: GeneConfig) -> GraphProgram:
        """Return a sub-network as a program."""
        selection = self.space.selection(config)
        graph = without_blocks(self.graph, selection.skipped)
        values = self._trace(graph, selection, config.resolution)
        nodes = tensor_operators(graph, values)
        outputs = network_outputs(graph)
        return program_of(nodes, values, outputs, (_placeholders(graph)[-3], outputs))

    def _trace(self, graph: fx.Graph, selection: Selection, resolution: int) -> dict[fx.Node, Any]:
        rewritten = self.graph
        full = Selection(selection.counts, selection.kernels)
        tensors = self._state | self._slices.tensors(self._state, full)
        images = torch.empty(self._image_shape[0], *self.image_shape(resolution), device="meta")
        inputs: list[Any] = [tensors[name] for name in rewritten.tensors]
        inputs += [constant.to("meta") for constant in rewritten.constants]
        inputs += [images, [size_of(quantity, selection) for quantity in rewritten.quantities], False]
        values: dict[fx.Node, Any] = dict(zip(_placeholders(graph), inputs, strict=True))
        for node in graph.nodes:
            if node.op == "call_function":
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
                if isinstance(kwargs.get("device"), torch.device):
                    kwargs["device"] = torch.device("meta")
                assert callable(node.target)
                try:
                    values[node] = node.target(*args, **kwargs)
                except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
                    reason = " ".join(str(error).split())[:200]
                    raise UserError(
                        f"The graph of {self.space.name} does not run on images of {resolution} pixels, at "
                        f"{node.name}: {reason}. Measure the resolutions at which it does."
                    ) from error
        return values


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    """Return the inputs of a graph: tensors, then the images, the sizes and the training flag."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def network_outputs(graph: fx.Graph) -> list[fx.Node]:
    """Return the nodes of the network's outputs."""
    output = next(node for node in graph.nodes if node.op == "output")
    return list(dict.fromkeys(output.all_input_nodes))


def tensor_operators(graph: fx.Graph, values: Values) -> list[fx.Node]:
    """Return the operators of a graph that compute tensors, rather than sizes."""
    return [
        node
        for node in graph.nodes
        if node.op == "call_function" and isinstance(values[node], Tensor | tuple | list)
    ]


def _image_shape(graph: RewrittenGraph, batch: int) -> tuple[int, int, int, int]:
    shapes = graph.input_shapes
    if len(shapes) != 1 or len(shapes[0]) != 4 or graph.in_spec.num_leaves != 1:
        texts = ", ".join(str(list(shape)) for shape in shapes) or "unknown"
        raise UserError(
            f"The inputs of the network have the shapes {texts}; expected one tensor of images, "
            "[batch, channels, height, width]."
        )
    if not graph.has_free_batch and shapes[0][0] != batch:
        raise UserError(
            f"The graph of the network runs with {shapes[0][0]} images, not with {batch}; set batch_size of "
            "the device to that."
        )
    return (batch, *shapes[0][1:])
