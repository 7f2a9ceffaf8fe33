"""Costs of sub-networks of a user's model as products of linear forms: MACs, parameters, peak memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.graph.forms import Form

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Product:
    """A number that grows with some sizes of a sub-network.

    Attributes:
        factors: constant factor at each resolution, ascending.
        forms: sizes that are factors.
        kernel: weight whose kernel's area is a factor; empty for none.
        block: block that has to be there; empty for none.
    """

    factors: tuple[float, ...]
    forms: tuple[Form, ...] = ()
    kernel: str = ""
    block: str = ""


@dataclass(frozen=True)
class Storage:
    """The memory of one or more tensors of the graph.

    Attributes:
        elements: numbers of elements, for one image.
        first: step of the graph that makes it.
        last: last step that reads it.
        without_block: block in place of whose output it lives on where the block is left out; often empty.
    """

    elements: Product
    first: int
    last: int
    without_block: str = ""


@dataclass(frozen=True)
class CostForms:
    """Costs of all sub-networks.

    Attributes:
        macs: multiply-accumulates of each operator.
        parameters: trainable parameters of each tensor.
        storages: memory of the activations.
        step_blocks: block of each step of the graph; empty outside of blocks.
    """

    macs: tuple[Product, ...] = ()
    parameters: tuple[Product, ...] = ()
    storages: tuple[Storage, ...] = ()
    step_blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Population:
    """Sub-networks as arrays of numbers.

    Attributes:
        resolutions: index of the resolution, shape (n,).
        counts: units of each group, shape (n, num_groups).
        kernels: sides of elastic kernels by weight, each of shape (n,).
        has_block: whether a block is there, by name, each of shape (n,).
    """

    resolutions: NDArray[np.int64]
    counts: Values
    kernels: Mapping[str, Values]
    has_block: Mapping[str, Values]

    def values(self, products: Sequence[Product]) -> Values:
        """Return the values of products, shape (n, num_products)."""
        forms = {form: index for index, form in enumerate({f: None for p in products for f in p.forms})}
        sizes = self._sizes(list(forms))
        result = np.empty((len(self.counts), len(products)))
        for index, product in enumerate(products):
            value = np.array(product.factors)[self.resolutions]
            for form in product.forms:
                value = value * sizes[:, forms[form]]
            if product.kernel:
                value = value * self.kernels[product.kernel] ** 2
            if product.block:
                value = value * self.has_block[product.block]
            result[:, index] = value
        return result

    def _sizes(self, forms: Sequence[Form]) -> Values:
        matrix = np.zeros((self.counts.shape[1], len(forms)))
        for column, form in enumerate(forms):
            for group, factor in form.terms:
                matrix[group, column] = factor
        constants = np.array([form.constant for form in forms], np.float64)
        return np.asarray(self.counts @ matrix + constants)


def peak_elements(costs: CostForms, population: Population) -> Values:
    """Return the largest number of elements that are stored at once, shape (n,).

    Views share the memory of what they show; a block that is left out takes no step.
    """
    sizes = population.values([storage.elements for storage in costs.storages])
    for column, storage in enumerate(costs.storages):
        if storage.without_block:
            sizes[:, column] *= 1 - population.has_block[storage.without_block]
    steps = sorted({storage.first for storage in costs.storages})
    first = np.array([storage.first for storage in costs.storages])
    last = np.array([storage.last for storage in costs.storages])
    is_stored = (first[:, None] <= np.array(steps)) & (np.array(steps) <= last[:, None])
    totals = sizes @ is_stored.astype(np.float64)
    for column, step in enumerate(steps):
        if step >= 0 and costs.step_blocks[step]:
            totals[:, column] *= population.has_block[costs.step_blocks[step]]
    return np.asarray(totals.max(axis=1))
