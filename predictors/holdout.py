"""Records that are held out: one random part of many, or each part of a few in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from predictors.settings import MIN_FITTED, FitSettings

MIN_HOLDOUT = 2
MIN_SINGLE_HOLDOUT = 100
"""With fewer records than this, every record is held out once (cross-validation)."""

NUM_FOLDS = 5
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Disjoint indices of the records: for the fit behind the metrics, and for the metrics."""

    fit_indices: Indices
    holdout_indices: Indices


def record_splits(num_records: int, settings: FitSettings, seed: int) -> tuple[Split, ...]:
    """Return the splits that judge a predictor: one, or `NUM_FOLDS` where records are few.

    Raises:
        UserError: if a part would have too few records.
    """
    if num_records >= MIN_SINGLE_HOLDOUT:
        return (split_records(num_records, settings, seed),)
    return fold_records(num_records, seed)


def split_records(num_records: int, settings: FitSettings, seed: int) -> Split:
    """Return the random split of `num_records` records.

    Raises:
        UserError: if a part would have too few records.
    """
    order = np.random.default_rng([seed, 0]).permutation(num_records)
    num_holdout = round(settings.holdout_fraction * num_records)
    num_known = num_records - num_holdout
    if num_known < MIN_FITTED or num_holdout < MIN_HOLDOUT:
        raise UserError(
            f"{num_records} accuracy records split into {num_known} for fitting and {num_holdout} held out; "
            f"expected at least {MIN_FITTED} and {MIN_HOLDOUT}. Collect more records, or change "
            "holdout_fraction."
        )
    return Split(order[num_holdout:], order[:num_holdout])


def fold_records(num_records: int, seed: int) -> tuple[Split, ...]:
    """Return `NUM_FOLDS` random splits that hold every record out once.

    Raises:
        UserError: if a fit would have too few records.
    """
    order = np.random.default_rng([seed, 0]).permutation(num_records)
    folds = np.array_split(order, NUM_FOLDS)
    num_known = num_records - len(folds[0])
    if num_known < MIN_FITTED:
        raise UserError(
            f"{num_records} accuracy records split into {num_known} for fitting and {len(folds[0])} held "
            f"out; expected at least {MIN_FITTED} for fitting. Collect more records."
        )
    return tuple(Split(np.setdiff1d(order, fold, assume_unique=True), fold) for fold in folds)


def held_out_indices(splits: Sequence[Split]) -> Indices:
    """Return the indices of the held-out records of all splits, one split after the other."""
    return np.concatenate([split.holdout_indices for split in splits])
