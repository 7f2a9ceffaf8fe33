"""Input layouts of published accuracy predictors: the input of each choice of each gene.

Inputs are one-hot. Inputs of inactive blocks are zero, so depth has no inputs of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError, unknown_name
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace

NO_INPUT = -1
_UNKNOWN = -2


@dataclass(frozen=True)
class InputLayout:
    """Input layout of a published predictor.

    Attributes:
        num_inputs: width of the MLP's input.
        num_stages: number of stages of the networks it was made for.
        inputs: takes a gene's kind, stage and block and returns the input of each value that the predictor
            knows; `NO_INPUT` for a value that other inputs imply or that all networks share.
    """

    num_inputs: int
    num_stages: int
    inputs: Callable[[str, int, int], Mapping[float, int]]


def _one_hot(start: int, values: Sequence[float]) -> dict[float, int]:
    return {value: start + index for index, value in enumerate(values)}


def _mobilenet_v3_inputs(kind: str, stage: int, block: int) -> Mapping[float, int]:
    """Kernel sizes of 20 blocks (60), their expand ratios (60), resolution (8)."""
    block += 4 * stage
    choices: dict[str, dict[float, int]] = {
        "resolution": _one_hot(120, range(112, 225, 16)),
        "depth": {2: NO_INPUT, 3: NO_INPUT, 4: NO_INPUT},
        "kernel_size": _one_hot(3 * block, (3, 5, 7)),
        "expand_ratio": _one_hot(60 + 3 * block, (3, 4, 6)),
    }
    return choices.get(kind, {})


_RESNET50_DEPTHS = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))


def _resnet50_inputs(kind: str, stage: int, block: int) -> Mapping[float, int]:
    """Resolution (8), stem's middle left out or kept (2), widths (6 x 3), expand ratios of 18 blocks (54)."""
    width = block if stage < 0 else 2 + stage
    stage = min(max(stage, 0), len(_RESNET50_DEPTHS) - 1)
    block += sum(depths[-1] for depths in _RESNET50_DEPTHS[:stage])
    choices: dict[str, dict[float, int]] = {
        "resolution": _one_hot(0, (128, 144, 160, 176, 192, 224, 240, 256)),
        "stem_depth": _one_hot(8, (0, 1)),
        "width": _one_hot(10 + 3 * width, (0.65, 0.8, 1.0)),
        "depth": dict.fromkeys(_RESNET50_DEPTHS[stage], NO_INPUT),
        "kernel_size": {3: NO_INPUT},
        "expand_ratio": _one_hot(28 + 3 * block, (0.2, 0.25, 0.35)),
        "rank": {1: NO_INPUT},
    }
    return choices.get(kind, {})


LAYOUTS: dict[str, InputLayout] = {
    "mobilenet_v3": InputLayout(128, 5, _mobilenet_v3_inputs),
    "resnet": InputLayout(82, 4, _resnet50_inputs),
}
"""Layouts by family of the space."""


class PublishedEncoder:
    """Encodes genomes of a space as inputs of its family's published predictor."""

    def __init__(self, space: StagedSpace) -> None:
        """Find the input of each choice.

        Args:
            space: space; the predictor must know all choices that its restriction allows.

        Raises:
            UserError: if there is no published predictor of the family, or it does not know some choices (all
                are named).
        """
        if space.family not in LAYOUTS:
            raise unknown_name("family with a published predictor", space.family, LAYOUTS)
        layout = LAYOUTS[space.family]
        if len(space.stages) != layout.num_stages:
            raise UserError(
                f"Space {space.name!r} has {len(space.stages)} stages; the published predictor of family "
                f"{space.family} is for {layout.num_stages}."
            )
        self.space, self.num_inputs = space.unrestricted, layout.num_inputs
        pairs = zip(space.genes, space.positions, strict=True)
        inputs_by_gene = [layout.inputs(gene.kind, *position) for gene, position in pairs]
        _check_choices(space, inputs_by_gene)
        self._input_indices = np.full(
            (len(inputs_by_gene), max(len(gene.choices) for gene in space.genes)), _UNKNOWN
        )
        for row, gene, inputs in zip(self._input_indices, space.genes, inputs_by_gene, strict=True):
            row[: len(gene.choices)] = [inputs.get(choice, _UNKNOWN) for choice in gene.choices]
        self._columns = np.arange(len(inputs_by_gene))

    def __call__(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return one-hot inputs, shape (n, num_inputs), of genomes (n, num_genes).

        Rows of genomes with choices that the predictor does not know are NaN.
        """
        input_indices = self._input_indices[self._columns, genomes]
        active = self.space.active(genomes)
        rows, columns = np.nonzero((input_indices >= 0) & active)
        inputs = np.zeros((len(genomes), self.num_inputs), np.float32)
        inputs[rows, input_indices[rows, columns]] = 1.0
        inputs[((input_indices == _UNKNOWN) & active).any(axis=1)] = np.nan
        return inputs


def _check_choices(space: StagedSpace, inputs_by_gene: Sequence[Mapping[float, int]]) -> None:
    """Raise unless every allowed choice is among the choices of its gene that have inputs."""
    errors: dict[str, None] = {}
    for gene, allowed, inputs in zip(space.genes, space.allowed, inputs_by_gene, strict=True):
        unknown_choices = [
            f"{gene.choices[index]:g}" for index in allowed if gene.choices[index] not in inputs
        ]
        if unknown_choices:
            values = ", ".join(f"{value:g}" for value in inputs) or "none"
            errors[f"{gene.name} {', '.join(unknown_choices)} (known: {values})"] = None
    if errors:
        raise UserError(
            f"The published predictor of family {space.family} does not know these choices of space "
            f"{space.name!r}: {'; '.join(errors)}. Restrict the space to known choices."
        )
