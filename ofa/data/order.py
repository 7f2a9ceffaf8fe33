"""The order in which the training images of an epoch are seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def epoch_order(labels: Rows, rng: np.random.Generator, balance: str, num_images: int) -> Rows:
    """Return the positions of the images of an epoch; after the last one it begins again with the first.

    Args:
        labels: class of every training image.
        rng: generator of the epoch.
        balance: `sampling` draws every class equally often, those with few images several times; otherwise
            each image comes once.
        num_images: length of the result.
    """
    order = balanced_order(labels, rng) if balance == "sampling" else rng.permutation(len(labels))
    return order[np.arange(num_images) % len(order)]


def balanced_order(labels: Rows, rng: np.random.Generator) -> Rows:
    """Return as many positions as there are labels, in which each class is equally frequent up to one."""
    classes = rng.permutation(np.unique(labels))
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[: len(labels) % len(classes)] += 1
    draws = []
    for label, share in zip(classes, shares, strict=True):
        rows = np.flatnonzero(labels == label)
        rounds = [rng.permutation(rows) for _ in range(-(-int(share) // len(rows)))]
        draws.append(np.concatenate(rounds)[:share] if rounds else rows[:0])
    return rng.permutation(np.concatenate(draws))
