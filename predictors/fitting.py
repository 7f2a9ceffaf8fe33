"""Fitting the accuracy predictor: metrics on a hold-out first, then the fit on all records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ofa.common.errors import UserError
from ofa.common.metric import TOP1, Metric
from ofa.common.progress import ProgressCallback, silent
from ofa.common.threads import blas_threads
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from predictors.baselines import BASELINES, accuracy_metrics, fit_baseline
from predictors.model.features import FeatureMap, space_views
from predictors.model.posterior import COVERAGE_DEVIATIONS, Posterior, standardise
from predictors.model.predictor import AccuracyPredictor, PredictorInfo, TargetScale
from predictors.records import RecordFile
from predictors.settings import MIN_FITTED, FitSettings

MIN_HOLDOUT = 2
HOLDOUT_METRICS = ("rmse_points", "kendall_tau", "spearman")


@dataclass(frozen=True)
class Split:
    """Disjoint indices of the records: for the fit behind the metrics, and for the metrics."""

    fit_indices: NDArray[np.intp]
    holdout_indices: NDArray[np.intp]


@dataclass(frozen=True)
class FitReport:
    """A predictor fitted on all records, and the metrics of one fitted without the hold-out.

    `metrics` maps mlp and each baseline to rmse_points, kendall_tau and spearman on the hold-out, and mlp
    also to `coverage`: the share of held-out accuracies within their 90 % interval.
    """

    predictor: AccuracyPredictor
    metrics: dict[str, dict[str, float]]
    split: Split


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


def fit(
    records: RecordFile,
    settings: FitSettings | None = None,
    *,
    seed: int = 0,
    progress: ProgressCallback = silent,
    threads: int | None = 1,
) -> AccuracyPredictor:
    """Return a predictor fitted on all records; its `info` says how well it did on a hold-out.

    Args:
        records: records of `collect`, at least about twelve.
        settings: settings of the fit; None for the default ones.
        seed: seed of the hold-out, the hidden layer and the members.
        progress: called after each iteration.
        threads: threads of linear algebra; None for the libraries' choice.

    Raises:
        UserError: if there are too few records, or accuracies that are no finite numbers.
    """
    report = fit_predictor(
        records.space,
        records.space.genomes(records.configs),
        records.values,
        settings or FitSettings(),
        seed,
        records.header.provenance,
        progress,
        metric=records.header.metric,
        threads=threads,
    )
    return report.predictor


def fit_predictor(
    space: SearchSpace,
    genomes: Genomes,
    values: NDArray[np.float64],
    settings: FitSettings,
    seed: int,
    provenance: Mapping[str, str],
    progress: ProgressCallback = silent,
    *,
    metric: Metric = TOP1,
    threads: int | None = 1,
) -> FitReport:
    """Fit the MLP and the baselines without the hold-out, evaluate both on it, and fit the MLP on all.

    Args:
        space: space of the genomes.
        genomes: distinct canonical genomes, shape (n, num_genes).
        values: measured values of the metric, shape (n,).
        settings: settings of the fit.
        seed: seed of the split, the hidden layer and the members; global generators are not used.
        provenance: origin of the records, stored with the predictor.
        progress: called after each iteration of either fit.
        metric: metric of `values`.
        threads: threads of linear algebra; more than one rarely help. None for the libraries' default.

    Raises:
        UserError: if there are too few records, or an accuracy is not finite.
    """
    split = split_records(len(genomes), settings, seed)
    fitted_indices, holdout = split.fit_indices, split.holdout_indices
    steps = settings.max_iterations
    without_holdout = fit_mlp(
        space,
        genomes[fitted_indices],
        values[fitted_indices],
        settings,
        seed,
        report=lambda step, evidence: progress(step, 2 * steps, f"log evidence {evidence:.0f}"),
        threads=threads,
    )
    metrics = {"mlp": interval_metrics(without_holdout, genomes[holdout], values[holdout], metric)}
    with blas_threads(threads):
        progress(steps, 2 * steps, "baselines")
        metrics |= _baseline_metrics(space.encode(genomes), values, split, seed, metric)
    info = PredictorInfo(
        metrics, asdict(settings), seed, len(genomes), len(holdout), dict(provenance), metric
    )
    predictor = fit_mlp(
        space,
        genomes,
        values,
        settings,
        seed,
        info,
        lambda step, evidence: progress(steps + step, 2 * steps, f"log evidence {evidence:.0f}"),
        threads=threads,
    )
    progress(2 * steps, 2 * steps, "")
    return FitReport(predictor, metrics, split)


def _baseline_metrics(
    features: NDArray[np.float32], values: NDArray[np.float64], split: Split, seed: int, metric: Metric
) -> dict[str, dict[str, float]]:
    """Return the metrics of every baseline on the hold-out."""
    fitted, holdout = split.fit_indices, split.holdout_indices
    metrics = {}
    for name, baseline in BASELINES.items():
        predict = fit_baseline(baseline, features[fitted], values[fitted], seed, threads=None)
        metrics[name] = accuracy_metrics(predict(features[holdout]), values[holdout], metric)
    return metrics


def fit_mlp(
    space: SearchSpace,
    genomes: Genomes,
    values: NDArray[np.float64],
    settings: FitSettings,
    seed: int,
    info: PredictorInfo | None = None,
    report: Callable[[int, float], None] = lambda iteration, evidence: None,
    *,
    threads: int | None = 1,
) -> AccuracyPredictor:
    """Return the predictor fitted on all the given records; see `fit_predictor` for further arguments.

    Args:
        space: space of the genomes.
        genomes: genomes, shape (n, num_genes).
        values: values of the metric, shape (n,).
        settings: settings of the fit; the hold-out fraction is not used.
        seed: seed of the hidden layer and the members.
        info: information stored with the predictor; by default without metrics.
        report: called with the iteration and the log evidence.
        threads: threads of linear algebra; None for the libraries' default.

    Raises:
        UserError: if there are fewer than eight records, or an accuracy is not finite.
    """
    if len(values) < MIN_FITTED:
        raise UserError(f"{len(values)} accuracy records; expected at least {MIN_FITTED} to fit a predictor.")
    if not np.isfinite(values).all():
        raise UserError("Some accuracies are not finite; expected numbers. Check the records.")
    features = FeatureMap.from_space(space)
    targets, mean, std = standardise(values)
    with blas_threads(threads):
        posterior = Posterior(
            space_views(features),
            features(genomes),
            targets,
            hidden_units=settings.hidden_units,
            members=settings.members,
            evidence_records=settings.evidence_records,
            max_iterations=settings.max_iterations,
            rng=np.random.default_rng([seed, 1]),
            report=report,
        )
        network = posterior.network()
    scale = TargetScale(mean, std, posterior.scales.noise, posterior.interval_factor)
    info = info or PredictorInfo({}, asdict(settings), seed, len(values), 0, {})
    return AccuracyPredictor(features, network, scale, info)


def interval_metrics(
    predictor: AccuracyPredictor, genomes: Genomes, values: NDArray[np.float64], metric: Metric = TOP1
) -> dict[str, float]:
    """Return `accuracy_metrics` of a predictor and the share of values within their 90 % interval."""
    predictions = predictor(genomes)
    is_inside = np.abs(predictions - values) <= COVERAGE_DEVIATIONS * predictor.uncertainty(genomes)
    return {**accuracy_metrics(predictions, values, metric), "coverage": float(is_inside.mean())}


def format_metrics(info: PredictorInfo) -> Table:
    """Return a table of the hold-out metrics of the MLP and the baselines, side by side."""
    table = Table(title=f"On {info.num_holdout} held-out of {info.num_records} sub-networks")
    table.add_column("predictor")
    metric = info.metric
    rmse = f"RMSE (points of {metric.title})" if metric.is_fraction else f"RMSE of {metric.title}"
    for title in (rmse, "Kendall tau", "Spearman"):
        table.add_column(title, justify="right")
    for name, values in info.metrics.items():
        table.add_row(name, *(f"{values[key]:.3f}" for key in HOLDOUT_METRICS))
    coverage = info.metrics["mlp"]["coverage"]
    table.caption = f"{100 * coverage:.0f} % inside the 90 % intervals; then fitted on all {info.num_records}"
    return table
