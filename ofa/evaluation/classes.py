"""Unequal classes: when they are worth a word, and their weights in the loss."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.data.base import ImageData
from ofa.data.settings import CLASSIFICATION

MAX_EQUAL_RATIO = 1.5
"""Classes are called unequal where the largest has more than so many times the images of the smallest."""

MAX_WEIGHT = 100.0
"""Largest weight of an image that has a rare label."""


def are_unequal(class_counts: Sequence[int]) -> bool:
    """Return whether the numbers of images of the classes differ by more than `MAX_EQUAL_RATIO`.

    Classes without images do not count.
    """
    counts = [count for count in class_counts if count]
    return bool(counts) and max(counts) > MAX_EQUAL_RATIO * min(counts)


def shows_other_metrics(data: ImageData, split: str) -> bool:
    """Return whether metrics beside the primary one tell more of a split.

    So it is where classes are unequal, and for every task but classification: the balanced accuracy of
    classes with equally many images is their accuracy.
    """
    counts = data.class_counts(split)
    return data.info.task != CLASSIFICATION or not counts or are_unequal(counts)


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
    """Return the weights of the classes in a loss if the `balance` of the set is loss; None for none.

    Where images have any number of labels, they are the weights of having each label.
    """
    if data.balance != "loss":
        return None
    counts, negative_counts = data.class_counts("train"), data.negative_counts("train")
    return balanced_weights(counts) if negative_counts is None else positive_weights(counts, negative_counts)


def positive_weights(counts: Sequence[int], negative_counts: Sequence[int]) -> tuple[float, ...]:
    """Return for each label how many times more images are without it than with it, at most `MAX_WEIGHT`.

    So the images with a label and those without weigh the same in all. A label of no image has weight 1.

    Args:
        counts: training images that have each label.
        negative_counts: training images that are known not to have it.
    """
    pairs = zip(counts, negative_counts, strict=True)
    return tuple(min(max(without, 1) / count, MAX_WEIGHT) if count else 1.0 for count, without in pairs)
