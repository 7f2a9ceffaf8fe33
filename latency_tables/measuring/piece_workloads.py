"""Programs of a user's network as workloads: pieces between slices, these slices alone, and networks.

As in `latency_tables.measuring.methods.SandwichedLayers`, the entry of a piece is the latency of the piece
between narrow slices, which make its inputs and read its outputs in the memory layout of the engine, minus
half of the latency of two slices at each of these tensors. A tensor that the network reads or returns has no
slice. A network pays for the call of the engine once; a call of a program that does nothing, in the right
measure, takes this cost out of all entries, whatever number of tensors a piece reads.

Between two runs of a piece, other programs run. Repeated runs would find its weights in a cache near the
processor; in a network that is larger than this cache they come from further away. On ResNet-18 at 64 pixels,
tables of repeated runs had errors of 11.5 %, those of single runs 2.0 % (ONNX Runtime, one thread).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from typing_extensions import override

from latency_tables.measuring.methods import NETWORK_VISITS_PER_ROUND, Workload
from ofa.graph.programs import GraphProgram, ProgramInput, shape_text

METHOD = "pieces of graphs between narrow slices less these"
_NARROW = 16
"""Channels, or features, of what slices read and return: as many as the widest vector instructions hold."""

_VISITS_PER_ROUND = 4

Shape = tuple[int, ...]


def piece_workload(program: GraphProgram) -> Workload:
    """Return the workload of a piece between slices; its key is that of the program."""
    return _cold(program.key, partial(_Sandwich, program), _source_shape(program))


def slice_workloads(program: GraphProgram) -> Iterator[tuple[Workload, float]]:
    """Yield the workloads whose latencies are subtracted from a piece's, each with its weight."""
    shapes = [entry.shape for entry in program.inputs if _has_slice(entry)]
    shapes += [entry.shape for entry in program.outputs if not entry.is_network_output]
    for shape in shapes:
        narrow = _narrow_shape(shape)
        yield _cold(f"slices {shape_text(shape)}", partial(_slices, shape), narrow), 0.5
    if len(shapes) != 2:
        yield _cold("call of the engine", nn.Identity, (1, 1, 1, 1)), 1 - len(shapes) / 2


def network_program_workload(key: str, program: GraphProgram) -> Workload:
    """Return the workload of a whole network."""
    return Workload(key, program.module, program.inputs[0].shape[1:], NETWORK_VISITS_PER_ROUND)


def _cold(key: str, build: Callable[[], nn.Module], shape: Shape) -> Workload:
    return Workload(key, build, shape[1:], _VISITS_PER_ROUND, is_cold=True)


def _has_slice(entry: ProgramInput) -> bool:
    return not entry.is_network_input and getattr(torch, entry.dtype).is_floating_point


def _narrow_shape(shape: Shape) -> Shape:
    """Return the shape with few channels: those of a map, or the features of vectors."""
    return (shape[0], _NARROW, *shape[2:]) if len(shape) == 4 else (*shape[:-1], _NARROW)


def _source_shape(program: GraphProgram) -> Shape:
    """Return the shape of the only input of a workload, from which slices make the inputs of the piece."""
    images = [entry.shape for entry in program.inputs if entry.is_network_input]
    shapes = [entry.shape for entry in program.inputs if _has_slice(entry)]
    if images or not shapes:
        return images[0] if images else (1, 1)
    return _narrow_shape(max(shapes, key=math.prod))


class _Sandwich(nn.Module):
    """A piece with slices that make its inputs from one tensor, and slices that read its outputs."""

    def __init__(self, program: GraphProgram) -> None:
        super().__init__()
        source = _source_shape(program)
        self.piece = program.module()
        self.heads = nn.ModuleList(_head(source, entry) for entry in program.inputs)
        self.tails = nn.ModuleList(
            nn.Identity() if entry.is_network_output else _tail(entry.shape) for entry in program.outputs
        )

    @override
    def forward(self, source: Tensor) -> Tensor | tuple[Tensor, ...]:
        results = self.piece(*(head(source) for head in self.heads))
        if len(self.tails) == 1:
            result: Tensor = self.tails[0](results)
            return result
        return tuple(tail(result) for tail, result in zip(self.tails, results, strict=True))


def _head(source: Shape, entry: ProgramInput) -> nn.Module:
    """Return a slice that makes an input of a piece."""
    if entry.is_network_input:
        return nn.Identity()
    if not _has_slice(entry):
        return _Zeros(entry.shape, getattr(torch, entry.dtype))
    target = entry.shape
    if len(source) == len(target) == 4:
        strides = [max(1, math.ceil(a / b)) for a, b in zip(source[2:], target[2:], strict=True)]
        sizes = tuple(math.ceil(side / stride) for side, stride in zip(source[2:], strides, strict=True))
        if sizes == target[2:]:
            return nn.Conv2d(source[1], target[1], 1, (strides[0], strides[1]))
    elif source[:-1] == target[:-1]:
        return nn.Linear(source[-1], target[-1])
    return _FromMean(source, target)


def _tail(shape: Shape) -> nn.Module:
    return nn.Conv2d(shape[1], _NARROW, 1) if len(shape) == 4 else nn.Linear(shape[-1], _NARROW)


def _slices(shape: Shape) -> nn.Module:
    """Return a slice that makes a tensor of this shape, and one that reads it."""
    head = _head(_narrow_shape(shape), ProgramInput(shape, "float32", is_network_input=False))
    return nn.Sequential(head, _tail(shape))


class _Zeros(nn.Module):
    """Whole numbers that a piece reads."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(*shape, dtype=dtype))

    @override
    def forward(self, source: Tensor) -> Tensor:
        return self.zeros  # type: ignore[return-value]


class _FromMean(nn.Module):
    """Makes a tensor of any shape from the means of another one."""

    def __init__(self, source: Shape, target: Shape) -> None:
        super().__init__()
        self._dims, self._target = tuple(range(2, len(source))), target
        self.linear = nn.Linear(source[1], math.prod(target[1:]))

    @override
    def forward(self, source: Tensor) -> Tensor:
        means = source.mean(self._dims) if self._dims else source
        result: Tensor = self.linear(means).reshape(self._target)
        return result
