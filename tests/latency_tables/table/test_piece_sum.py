"""Sums of measured pieces: exact at measured sizes, multilinear between them, nothing for blocks left out."""

from __future__ import annotations

import numpy as np
import pytest

from latency_tables.table.piece_sum import PieceAxis, PieceSum, PieceTerm
from ofa.common.errors import UserError
from ofa.space.genes import Condition, Gene
from ofa.space.plain import GeneSpace

SPACE = GeneSpace(
    "toy",
    (
        Gene("resolution", (10, 20, 30), "resolution"),
        Gene("depth:chain", (0, 1, 2), "depth", "chain"),
        Gene("width:a", (8, 16, 32), "width", "a"),
        Gene("width:b", (4, 8), "width", "b", Condition("depth:chain", (1, 2))),
    ),
)
CHOICES = {gene.name: gene.choices for gene in SPACE.genes}
A = PieceAxis(("width:a",), ((8.0,), (32.0,)))
B = PieceAxis(("width:b",), ((4.0,), (8.0,)))


def sums(*terms: PieceTerm, **latencies_ms: float) -> dict[tuple[float, ...], float]:
    """Return the sum of each network by the values of its genes."""
    genomes = SPACE.all_genomes()
    values = PieceSum(SPACE, terms, latencies_ms, CHOICES)(genomes)
    rows = [
        tuple(gene.choices[index] for gene, index in zip(SPACE.genes, genome, strict=True))
        for genome in genomes
    ]
    return dict(zip(rows, values.tolist(), strict=True))


def test_two_sizes_are_interpolated_bilinearly() -> None:
    term = PieceTerm((A, B), ("k", "l", "m", "n"))
    values = sums(term, k=1.0, l=2.0, m=4.0, n=9.0)
    corners = {(8, 4): 1.0, (8, 8): 2.0, (32, 4): 4.0, (32, 8): 9.0}
    for (a, b), value in corners.items():
        assert values[10, 2, a, b] == pytest.approx(value)
    assert values[10, 2, 16, 4] == pytest.approx(1.0 + (4.0 - 1.0) / 3)
    assert values[10, 2, 16, 8] == pytest.approx(2.0 + (9.0 - 2.0) / 3)


def test_sides_of_squares_are_interpolated_by_their_areas() -> None:
    axis = PieceAxis(("resolution",), ((10.0,), (30.0,)))
    values = sums(PieceTerm((axis,), ("small", "large")), small=100.0, large=900.0)
    assert values[20, 0, 8, 4] == pytest.approx(400.0)


def test_genes_of_one_axis_grow_together() -> None:
    axis = PieceAxis(("width:a", "width:b"), ((8.0, 4.0), (32.0, 8.0)))
    values = sums(PieceTerm((axis,), ("small", "large")), small=12.0, large=40.0)
    assert values[10, 2, 16, 8] == pytest.approx(16 + 8)


def test_places_in_blocks_that_are_left_out_cost_nothing() -> None:
    first, second = (PieceTerm((A,), ("k", "l"), "depth:chain", index) for index in (0, 1))
    always = PieceTerm((), ("m",))
    values = sums(first, second, always, k=1.0, l=4.0, m=0.5)
    assert [values[10, depth, 8, 4] for depth in (0, 1, 2)] == pytest.approx([0.5, 1.5, 2.5])


def test_networks_with_other_choices_have_no_sum() -> None:
    total = PieceSum(SPACE, (PieceTerm((), ("k",)),), {"k": 1.0}, {**CHOICES, "width:a": (8.0, 32.0)})
    genomes = SPACE.all_genomes()
    is_other = np.array(SPACE.genes[2].choices)[genomes[:, 2]] == 16
    np.testing.assert_array_equal(np.isnan(total(genomes)), is_other)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="A piece has 3 keys; expected 4"):
        PieceTerm((A, B), ("k", "l", "m"))
    with pytest.raises(UserError, match="expected a value for each gene at each point"):
        PieceAxis(("width:a", "width:b"), ((8.0,), (32.0,)))
