"""Fit the accuracy predictor on collected records, e.g. `fit_predictor.py run_name=digits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig
from predictors.settings import FitSettings

if TYPE_CHECKING:
    from predictors.fit import FitReport


@dataclass(frozen=True, kw_only=True)
class FitConfig(RunConfig):
    """Settings of `conf/fit_predictor.yaml`."""

    predictor: FitSettings
    seed: int


@command("fit_predictor", FitConfig)
def fit(config: FitConfig) -> FitReport:
    """Fit, compare with the baselines, save the predictor and return the report."""
    from ofa.common.accelerator import threads_set
    from predictors.collection.records import load_records, read_header
    from predictors.fit import fit_predictor, format_metrics

    run, space = config.directory, config.trained_space
    configs, values = load_records(run.records, space)
    header = read_header(run.records, space)
    with threads_set(config.threads), progress_bar("fitting") as progress:
        genomes = space.genomes(configs)
        report = fit_predictor(
            space,
            genomes,
            values,
            config.predictor,
            config.seed,
            header.provenance,
            progress,
            metric=header.metric,
            threads=config.threads,
        )
    report.predictor.save(run.predictor)
    Console().print(format_metrics(report))
    print(
        f"predictor: {run.predictor}\nnext: python scripts/build_latency_table.py run_name={config.run_name}"
    )
    return report


if __name__ == "__main__":
    fit()
