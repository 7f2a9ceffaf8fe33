"""MACs, parameters and peak activation memory of layers: arithmetic on `LayerSpec`, no model.

Counting follows the published once-for-all code: convolutions and linear layers, squeeze-excite
included; no batch norm, activations or pooling. A function of a layer is compiled once into lookup
arrays and then evaluated for whole populations by indexing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, singledispatch

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import slots
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace

LayerCost = Callable[[LayerSpec], float]


def macs(spec: LayerSpec) -> int:
    """Multiply-accumulates of the layer for one image."""
    return sum(op.macs for op in spec.operators)


def parameters(spec: LayerSpec) -> int:
    """Trainable parameters of the layer, batch norm's scale and shift included."""
    return sum(
        op.kernel_size**2 * (op.in_channels // op.groups) * op.out_channels
        + op.out_channels * (op.bias + 2 * op.batch_norm)
        for op in spec.operators
    )


def peak_activation_bytes(spec: LayerSpec, bytes_per_element: int = 4) -> int:
    """Peak activation memory of the layer in bytes, for one image; see `LayerSpec.peak_elements`."""
    return bytes_per_element * spec.peak_elements


@dataclass(frozen=True)
class NetworkCost:
    """Costs of one network for one image: counts, and bytes in float32."""

    macs: int
    parameters: int
    peak_activation_bytes: int


def network_cost(specs: Iterable[LayerSpec]) -> NetworkCost:
    """Return the costs of the layers of one network."""
    layers = tuple(specs)
    return NetworkCost(
        sum(map(macs, layers)), sum(map(parameters, layers)), max(map(peak_activation_bytes, layers))
    )


@singledispatch
def space_costs(space: SearchSpace) -> Mapping[str, Estimator]:
    """Return the known costs of a space by name: "macs", "parameters" and "peak_activation_bytes".

    A type of space whose networks consist of layers registers itself; other types have no known costs.
    """
    return {}


@space_costs.register
@lru_cache(maxsize=64)
def _staged_costs(space: StagedSpace) -> Mapping[str, Estimator]:
    return {
        "macs": compile_cost(space, macs),
        "parameters": compile_cost(space, parameters),
        "peak_activation_bytes": compile_cost(space, peak_activation_bytes, np.maximum),
    }


def compile_cost(space: StagedSpace, cost: LayerCost, combine: np.ufunc = np.add) -> Estimator:
    """Compile a function of one layer into an estimator of whole populations.

    Args:
        space: space of the genomes; its restriction has no effect.
        cost: value of one layer; called once per distinct layer.
        combine: reduction over layers: np.add for sums, np.maximum for peaks.
    """
    cache: dict[LayerSpec, float] = {}
    tables = []
    for slot in slots(space):
        columns = tuple(slot.genes.values())
        choices = [space.genes[gene].choices for gene in columns]
        values = np.zeros([len(c) for c in choices])
        for index in itertools.product(*(range(len(c)) for c in choices)):
            spec = slot.build(*(c[i] for c, i in zip(choices, index, strict=True)))
            if spec is not None:
                if spec not in cache:
                    cache[spec] = float(cost(spec))
                values[index] = cache[spec]
        tables.append((columns, values))
    return _LookupEstimator(tables, len(space.genes), combine)


class _LookupEstimator:
    """Values of all slots in one flat array; a network costs one gather and one reduction.

    The index of a slot's value is an integer-weighted sum of its genes, so the indices of all slots are one
    matrix product of the population with a (num_genes, num_slots) matrix.
    """

    def __init__(
        self, tables: list[tuple[tuple[int, ...], NDArray[np.float64]]], num_genes: int, combine: np.ufunc
    ) -> None:
        self._weights = np.zeros((num_genes, len(tables)), np.float64)
        offsets, flat, offset = [], [], 0
        for column, (genes, values) in enumerate(tables):
            for gene, stride in zip(genes, values.strides, strict=True):
                self._weights[gene, column] = stride // values.itemsize
            offsets.append(offset)
            flat.append(values.ravel())
            offset += values.size
        self._offsets = np.array(offsets, np.float64)
        self._flat = np.concatenate(flat)
        self._combine = combine

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        indices = (genomes.astype(np.float64) @ self._weights + self._offsets).astype(np.intp)
        return np.asarray(self._combine.reduce(self._flat[indices], axis=1), np.float64)
