"""Fit the accuracy predictor on collected records, e.g. `ofa fit run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ofa.common.locks import sole_writer
from ofa.common.progress import progress_bar, table_console
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from predictors.settings import FitSettings

if TYPE_CHECKING:
    from predictors import AccuracyPredictor


@dataclass(frozen=True, kw_only=True)
class FitConfig(RunConfig):
    """Settings of `conf/fit_predictor.yaml`."""

    predictor: FitSettings
    seed: int


@command("fit_predictor", FitConfig)
def fit_predictor(config: FitConfig) -> AccuracyPredictor:
    """Fit, compare with the baselines, save the predictor and return it."""
    from ofa.common.accelerator import threads_set
    from predictors import RecordFile, fit
    from predictors.quality import format_metrics, warnings

    run = config.directory
    records = RecordFile.read(run.records, config.trained_space)
    with (
        sole_writer(run.predictor, "predictor", setting="run_name"),
        threads_set(config.threads),
        progress_bar("fitting") as progress,
    ):
        predictor = fit(
            records, config.predictor, seed=config.seed, progress=progress, threads=config.threads
        )
        predictor.save(run.predictor)
    table_console().print(format_metrics(predictor.info))
    for text in warnings(predictor.info):
        print(text)
    print(f"predictor: {run.predictor}\n{next_command(config, 'measure')}")
    return predictor


if __name__ == "__main__":
    fit_predictor()
