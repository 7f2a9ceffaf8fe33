"""Splits that are cut: class by class, by shares and counts, and stable when files come and go."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from ofa.common.errors import UserError
from ofa.data.settings import DataSettings, SplitSize
from ofa.data.splits import class_quotas, cut_split


def cut(labels: list[int], size: SplitSize, stratified: bool = True) -> tuple[list[int], list[int]]:
    order = list(range(len(labels)))
    random.Random(1).shuffle(order)
    return cut_split(labels, order, size, stratified=stratified, name="data.test_size", source="pictures")


def quotas(counts: list[int], size: SplitSize) -> list[int]:
    result = class_quotas(np.array(counts), size, name="data.validation_size", source="pictures")
    return [int(value) for value in result]


def test_every_class_gives_its_part_and_the_order_stays() -> None:
    labels = [0] * 24 + [1] * 2
    part, remainder = cut(labels, 8)
    assert Counter(labels[row] for row in part) == {0: 7, 1: 1}
    assert sorted(part + remainder) == list(range(26))
    order = list(range(26))
    random.Random(1).shuffle(order)
    assert [row for row in order if row in part] == part
    assert [row for row in order if row in remainder] == remainder


def test_an_unstratified_split_is_the_beginning_of_the_order() -> None:
    labels = [0] * 24 + [1] * 2
    part, remainder = cut(labels, 8, stratified=False)
    order = list(range(26))
    random.Random(1).shuffle(order)
    assert part == order[:8] and remainder == order[8:]


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([150] * 5, None, [30] * 5),
        ([50, 30, 9, 2, 1], None, [20, 15, 4, 1, 0]),
        ([60_000, 20_000], None, [7500, 2500]),
        ([100, 7, 3, 1], 0.25, [25, 2, 1, 0]),
        ([2, 2], 0.9, [1, 1]),
        ([100, 7, 3], 10, [8, 1, 1]),
        ([90, 5, 5], 3, [1, 1, 1]),
        ([10, 10, 10], 4, [2, 1, 1]),
        ([4, 2], 4, [3, 1]),
    ],
)
def test_quotas_counted_by_hand(counts: list[int], size: SplitSize, expected: list[int]) -> None:
    assert quotas(counts, size) == expected


def test_two_default_splits_leave_half_of_a_small_class() -> None:
    counts = np.array([40, 12, 1000])
    test = class_quotas(counts, None, name="n", source="s", max_share=1 / 4)
    validation = class_quotas(counts - test, None, name="n", source="s", max_share=1 / 3)
    assert test.tolist() == [10, 3, 200] and validation.tolist() == [10, 3, 160]


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UserError, match="is 1 but pictures holds 20 images of 2 classes; expected 2 to 18"):
        quotas([10, 10], 1)
    with pytest.raises(UserError, match="is 19 but pictures holds 20 images of 2 classes; expected 2 to 18"):
        quotas([10, 10], 19)
    with pytest.raises(UserError, match="No class of pictures has two images, so no validation images"):
        quotas([1, 1, 1], None)
    with pytest.raises(UserError, match="test_size is 4 but pictures holds 4 images"):
        cut([0, 0, 1, 1], 4, stratified=False)


@pytest.mark.parametrize("size", [None, 0.3, 12])
def test_removing_an_image_moves_at_most_one_other_of_a_class(size: SplitSize) -> None:
    labels = [row % 3 for row in range(90)]
    order = list(range(90))
    random.Random(2).shuffle(order)
    whole = set(cut_split(labels, order, size, stratified=True, name="n", source="s")[0])
    for removed_row in (order[0], order[-1], order[40]):
        rest = [row for row in order if row != removed_row]
        part = set(cut_split(labels, rest, size, stratified=True, name="n", source="s")[0])
        moves = Counter(labels[row] for row in (whole ^ part) - {removed_row})
        assert all(count <= 1 for count in moves.values())


@pytest.mark.parametrize("name", ["validation_size", "test_size"])
@pytest.mark.parametrize("size", [0, -3, 0.0, 1.0, 2.5, float("nan")])
def test_sizes_are_counts_or_shares(name: str, size: SplitSize) -> None:
    with pytest.raises(UserError, match=f"{name} is {size}; expected at least 1 image, a share"):
        DataSettings("digits", **{name: size})  # type: ignore[arg-type]


def test_all_wrong_settings_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        DataSettings("digits", balance="samplings", augment="trivail", on_unreadable="no", random_erasing=2)
    text = str(caught.value)
    assert "balance is 'samplings'; expected none, sampling, loss. Did you mean 'sampling'?" in text
    assert "Did you mean 'trivial'?" in text and "on_unreadable is 'no'" in text and "random_erasing" in text
