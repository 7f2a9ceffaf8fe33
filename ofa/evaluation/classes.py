"""Unequal classes: when they are worth a word, and their weights in the loss."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.data.base import ImageData

MAX_EQUAL_RATIO = 1.5
"""Classes are called unequal where the largest has more than so many times the images of the smallest."""


def are_unequal(class_counts: Sequence[int]) -> bool:
    """Return whether the numbers of images of the classes differ by more than `MAX_EQUAL_RATIO`.

    Classes without images do not count.
    """
    counts = [count for count in class_counts if count]
    return bool(counts) and max(counts) > MAX_EQUAL_RATIO * min(counts)


def shows_other_metrics(data: ImageData, split: str) -> bool:
    """Return whether metrics beside the primary one tell more of a split.

    So it is where classes are unequal, where there are none, and for every task of the user's own.
    """
    counts = data.class_counts(split)
    return ":" in data.info.task or not counts or are_unequal(counts)


def balanced_weights(class_counts: Sequence[int]) -> tuple[float, ...]:
    """Return weights of the classes that are inverse to their numbers of images, with mean 1 over the images.

    Equal numbers have weights of exactly 1; a class without images has weight 0.

    Args:
        class_counts: training images per class, at least one in all.
    """
    num_present = sum(count > 0 for count in class_counts)
    mean = sum(class_counts) / num_present
    return tuple(mean / count if count else 0.0 for count in class_counts)


def class_weights(data: ImageData) -> tuple[float, ...] | None:
    """Return the weights of the classes in a loss if the `balance` of the set is loss; None for none."""
    return balanced_weights(data.class_counts("train")) if data.balance == "loss" else None
