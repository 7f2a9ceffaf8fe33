"""Pieces of a graph as engines fuse them, and programs that compute what sub-networks do."""

from __future__ import annotations

import copy
import pickle
from functools import cache

import pytest
import torch
from elastic_toys import toy_supernet
from every_trap import TRAPS, example_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ofa.common.errors import UserError
from ofa.graph.capture import tensors_in
from ofa.graph.convert import make_elastic
from ofa.graph.labels.call import operator_name
from ofa.graph.pieces import Piece, find_pieces
from ofa.graph.programs import GraphProgram
from ofa.graph.supernet import GraphSupernet
from ofa.graph.tracing import GraphTracer


@cache
def supernet_of_images(name: str) -> GraphSupernet | None:
    """Return the supernet of a trap that reads one tensor of images."""
    network = TRAPS[name]().eval()
    args = example_of(network)
    if not (len(args) == 1 and isinstance(args[0], Tensor) and args[0].dim() == 4):
        return None
    return make_elastic(network, args, widths=(0.5, 1.0), divisor=2, min_channels=2).eval()


def tracer_of(supernet: GraphSupernet, batch: int = 1) -> GraphTracer:
    assert supernet.graph is not None
    return GraphTracer(supernet.graph, supernet.space, supernet.template, batch)


def macs_of(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(images)
    num_flops: int = counter.get_total_flops()
    return num_flops


NAMES = sorted(set(TRAPS) - {"PythonBranch"})


@pytest.mark.parametrize("name", NAMES)
def test_programs_run_as_sub_networks_do(name: str) -> None:
    supernet = supernet_of_images(name)
    if supernet is None or supernet.graph is None or supernet.graph.modules:
        pytest.skip("no graph that reads one tensor of images")
    batch = 1 if supernet.graph.has_free_batch else 2
    for config in (supernet.space.smallest, supernet.space.largest):
        tracer = tracer_of(supernet, batch)
        images = torch.rand(batch, *tracer.image_shape(config.resolution))
        program = pickle.loads(pickle.dumps(tracer.network(config)))
        assert isinstance(program, GraphProgram)
        module, extracted = program.module(), supernet.extract(config)
        outputs, expected = tensors_in(module(images)), tensors_in(extracted(images))
        assert [tuple(t.shape) for t in outputs] == list(dict.fromkeys(tuple(t.shape) for t in expected))[
            : len(outputs)
        ]
        assert macs_of(module, images) == macs_of(extracted, images)
        values = tracer.values(config)
        pieces = find_pieces(tracer.graph, values)
        programs = [piece.program(tracer, values) for piece in pieces]
        for piece in programs:
            inputs = [torch.zeros(entry.shape, dtype=getattr(torch, entry.dtype)) for entry in piece.inputs]
            results = tensors_in(piece.module()(*inputs))
            assert [tuple(t.shape) for t in results] == [entry.shape for entry in piece.outputs]


def names_of(piece: Piece) -> str:
    return "+".join(operator_name(node) for node in piece.nodes)


def test_light_operators_follow_heavy_ones_within_their_block() -> None:
    supernet = toy_supernet()
    tracer = tracer_of(supernet)
    pieces = find_pieces(tracer.graph, tracer.values(supernet.space.largest))
    assert [(names_of(piece), piece.block) for piece in pieces] == [
        ("conv2d+relu", ""),
        ("conv2d+batch_norm+relu", "blocks.0"),
        ("conv2d+add+relu", "blocks.0"),
        ("conv2d+batch_norm+relu", "blocks.1"),
        ("conv2d+add+relu", "blocks.1"),
        ("conv2d+relu", ""),
        ("mean", ""),
        ("linear", ""),
    ]
    assert pieces[2].reads(pieces[1]) and pieces[2].reads(pieces[0]) and not pieces[1].reads(pieces[2])


def test_programs_are_equal_exactly_when_all_that_counts_is() -> None:
    supernet = toy_supernet()
    tracer, space = tracer_of(supernet), supernet.space

    def keys(**values: float) -> list[str]:
        config = space.config_of({**space.largest.to_dict(), **values})
        traced = tracer.values(config)
        return [piece.program(tracer, traced).key for piece in find_pieces(tracer.graph, traced)]

    full = keys()
    assert full[1:3] == full[3:5]
    changed = [a != b for a, b in zip(full, keys(**{"width:blocks.0.conv1": 8}), strict=True)]
    assert changed == [False, True, True, False, False, False, False, False]
    assert full[0].startswith("conv2d+relu 1x3x12x12>1x16x12x12 ")
    twos = tracer_of(supernet, 2)
    values = twos.values(space.largest)
    assert find_pieces(twos.graph, values)[0].program(twos, values).key != full[0]


class Viewed(nn.Module):
    """Its last layers read a view of fixed size, so that it runs at one resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16 * 64, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images).relu().flatten(1))
        return logits


def test_other_resolutions_of_a_graph_are_refused() -> None:
    supernet = make_elastic(Viewed().eval(), torch.rand(2, 3, 8, 8))
    tracer = tracer_of(supernet)
    config = copy.copy(supernet.space.largest)
    object.__setattr__(config, "values", (("resolution", 16.0), *config.values[1:]))
    with pytest.raises(UserError, match="does not run on images of 16 pixels, at linear: .* Measure the"):
        tracer.values(config)
