"""Split convolutions: equal at full rank, the best ones first, sorted anew without another function."""

from __future__ import annotations

import pytest
import torch

from ofa.modules.split import composed_weight, full_rank, sort_by_singular_value, split_weights

SHAPES = [(16, 8, 3, 3), (8, 24, 3, 5), (4, 32, 7, 3)]


def weight_of(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_all_channels_together_are_the_kernel(shape: tuple[int, ...]) -> None:
    weight = weight_of(shape)
    first, last = split_weights(weight, full_rank(weight))
    torch.testing.assert_close(composed_weight(first, last), weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_channels_are_the_best_split(shape: tuple[int, ...]) -> None:
    weight = weight_of(shape)
    first, last = split_weights(weight, full_rank(weight))
    for rank in (1, full_rank(weight) // 2):
        smaller = split_weights(weight, rank)
        assert torch.equal(first[:rank], smaller[0]) and torch.equal(last[:, :rank], smaller[1])
        dropped = composed_weight(first[rank:], last[:, rank:])
        error = (weight - composed_weight(*smaller)).norm()
        torch.testing.assert_close(error, dropped.norm())
    # Both factors carry the square root of the singular values, which fall.
    of_first, of_last = first.flatten(1).norm(dim=1), last.transpose(0, 1).flatten(1).norm(dim=1)
    torch.testing.assert_close(of_first, of_last)
    assert bool((of_first.diff() <= 1e-12).all())


def test_sorting_keeps_the_function_and_the_channels_behind() -> None:
    weight = weight_of((16, 8, 3, 3))
    expected = split_weights(weight, 24)
    mixing = torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, last = (factor.clone() for factor in expected)
    first[:20] = torch.einsum("rs,sikl->rikl", mixing, expected[0][:20])
    last[:, :20] = torch.einsum("orkl,rs->oskl", expected[1][:, :20], mixing.inverse())
    first, last = first.float(), last.float()
    behind = first[20:].clone(), last[:, 20:].clone()
    before = composed_weight(first, last)
    sort_by_singular_value(first, last, 20)
    torch.testing.assert_close(composed_weight(first, last), before, rtol=0, atol=1e-5)
    assert torch.equal(first[20:], behind[0]) and torch.equal(last[:, 20:], behind[1])
    best = composed_weight(expected[0][:7], expected[1][:, :7]).float()
    torch.testing.assert_close(composed_weight(first[:7], last[:, :7]), best, rtol=0, atol=1e-4)


def test_kernels_stay_in_the_precision_of_the_weights() -> None:
    first, last = (factor.float() for factor in split_weights(weight_of((16, 8, 3, 3)), 24))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kernels = composed_weight(first, last)
    assert kernels.dtype == torch.float32 and torch.equal(kernels, composed_weight(first, last))
