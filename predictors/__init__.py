"""Accuracy records, their collection, and predictors fitted on them."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from predictors.collection.collect import collect
    from predictors.fitting import fit
    from predictors.load import load_predictor
    from predictors.model.predictor import AccuracyPredictor
    from predictors.records import RecordFile
    from predictors.settings import FitSettings

__all__ = [
    "AccuracyPredictor",
    "FitSettings",
    "RecordFile",
    "collect",
    "fit",
    "load_predictor",
]

__getattr__ = lazy_names(
    __name__,
    {
        "collection.collect": ["collect"],
        "fitting": ["fit"],
        "load": ["load_predictor"],
        "model.predictor": ["AccuracyPredictor"],
        "records": ["RecordFile"],
        "settings": ["FitSettings"],
    },
)
