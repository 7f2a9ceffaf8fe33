"""Loading an accuracy predictor of any kind: fitted here or imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ofa.common.metric import Metric
from ofa.common.reading import read_json
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from predictors.model.predictor import AccuracyPredictor
from predictors.published import predictor as published


class Predictor(Estimator, Protocol):
    """An estimator of a known metric."""

    @property
    def metric(self) -> Metric:
        """The predicted metric."""


LOADERS: dict[str, Callable[[Path, SearchSpace, int | None], Predictor]] = {
    published.KIND: published.PublishedPredictor.load,
}
"""Loaders by the kind in the JSON twin; predictors of this project have no kind."""


def load_predictor(path: Path, space: SearchSpace, threads: int | None = 1) -> Predictor:
    """Return the predictor at `path` (predictor.pt, with its .json twin), an estimator of its metric.

    It computes with `threads` CPU threads; None for PyTorch's number.

    Raises:
        UserError: if a file is missing or damaged, or the predictor belongs to another space.
    """
    values = read_json(path.with_suffix(".json"), "accuracy predictor", "fit")
    return LOADERS.get(str(values.get("kind")), AccuracyPredictor.load)(path, space, threads)
