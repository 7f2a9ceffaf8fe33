"""`AMOUNTS`: what a layer computes and moves, by kind of work, and its sums over networks.

Engines and processors differ in the time per multiply-accumulate of each kind: a depthwise convolution is
bound by memory where a pointwise one is bound by arithmetic, and channels that do not fill the vectors of a
processor may take other code. The amounts are counts for one image, known without any measurement.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import LayerCost, compile_cost, parameters
from ofa.architecture.layer import LayerSpec, Operator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace

MILLION = 1e6

VECTOR_CHANNELS = 16
"""Channels in the widest vector instructions of processors: 16 numbers of 32 bits."""


def work_kind(op: Operator) -> str:
    """Return the kind of work of a convolution or linear layer, one of the first names of `AMOUNTS`."""
    if op.groups > 1:
        return "depthwise" if op.out_channels % VECTOR_CHANNELS == 0 else "depthwise, partial vectors"
    if op.input_size == 1:
        return "vectors"
    return "pointwise" if op.kernel_area == 1 else "convolution"


def _macs_of(kind: str) -> LayerCost:
    return lambda spec: float(sum(op.macs for op in spec.operators if work_kind(op) == kind))


def _output_elements(spec: LayerSpec) -> float:
    return float(sum(op.output_elements for op in spec.operators))


def _one(spec: LayerSpec) -> float:
    return 1.0


_KINDS = ("convolution", "pointwise", "depthwise", "depthwise, partial vectors", "vectors")

AMOUNTS: dict[str, Callable[[LayerSpec], float]] = {
    **{kind: _macs_of(kind) for kind in _KINDS},
    "elements": _output_elements,
    "parameters": parameters,
    "layers": _one,
}
"""Amount of a layer by name: multiply-accumulates of each kind of convolution ("vectors": linear layers and
squeeze-excite), elements of all outputs, parameters, and the layer itself, for what each costs to start."""


def amounts_of(space: StagedSpace, genomes: Genomes) -> NDArray[np.float64]:
    """Return the amounts of networks in millions, shape (n, number of amounts), in the order of `AMOUNTS`.

    Args:
        space: the space of the networks.
        genomes: the networks, shape (n, num_genes).
    """
    amounts = [compile_cost(space, amount)(genomes) for amount in AMOUNTS.values()]
    return np.stack(amounts, axis=1) / MILLION
