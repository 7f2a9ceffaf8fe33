"""Fitting the accuracy predictor: metrics on held-out records first, then the fit on all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.progress import ProgressCallback, silent
from ofa.common.threads import blas_threads
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from predictors.baselines import (
    BASELINES,
    LINEAR,
    Fit,
    accuracy_metrics,
    as_predictor,
    fit_baseline,
    is_clearly_better,
)
from predictors.holdout import Split, fold_records, held_out_indices, record_splits
from predictors.model.features import FeatureMap, space_views
from predictors.model.posterior import COVERAGE_DEVIATIONS, Posterior, standardise
from predictors.model.predictor import AccuracyPredictor, PredictorInfo, TargetScale
from predictors.records import RecordFile
from predictors.settings import MIN_FITTED, FitSettings


@dataclass(frozen=True)
class FitReport:
    """A predictor fitted on all records, and the metrics of those fitted without held-out records.

    `metrics` maps mlp and each baseline to rmse_points, kendall_tau and spearman on held-out records, and mlp
    also to `coverage`: the share of held-out accuracies within their 90 % interval.
    """

    predictor: AccuracyPredictor
    metrics: dict[str, dict[str, float]]
    splits: tuple[Split, ...]


def fit(
    records: RecordFile,
    settings: FitSettings | None = None,
    *,
    seed: int = 0,
    progress: ProgressCallback = silent,
    threads: int | None = 1,
) -> AccuracyPredictor:
    """Return a predictor fitted on all records; its `info` says how well it did on held-out ones.

    Fewer than 100 records are judged by cross-validation. Where the linear baseline predicts clearly better,
    the predictor is that (`info.model`); see `is_clearly_better`.

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
    metric: Metric = DEFAULT_METRIC,
    threads: int | None = 1,
) -> FitReport:
    """Judge the MLP and the baselines on held-out records, and fit the better one on all.

    Args:
        space: space of the genomes.
        genomes: distinct canonical genomes, shape (n, num_genes).
        values: measured values of the metric, shape (n,).
        settings: settings of the fit.
        seed: seed of the splits, the hidden layer and the members; global generators are not used.
        provenance: origin of the records, stored with the predictor.
        progress: called after each iteration of every fit of the MLP.
        metric: metric of `values`.
        threads: threads of linear algebra; more than one rarely help. None for the libraries' default.

    Raises:
        UserError: if there are too few records, or an accuracy is not finite.
    """
    splits = record_splits(len(genomes), settings, seed)
    total = (1 + len(splits)) * settings.max_iterations
    trial = Trial(space, genomes, values, settings, seed, metric, threads)

    def report_from(num_fits: int) -> Callable[[int, float], None]:
        first = num_fits * settings.max_iterations
        return lambda step, evidence: progress(first + step, total, f"log evidence {evidence:.0f}")

    metrics = {"mlp": trial.mlp_metrics(splits, report_from)}
    progress(len(splits) * settings.max_iterations, total, "baselines")
    metrics |= {name: trial.baseline_metrics(splits, baseline) for name, baseline in BASELINES.items()}
    info = PredictorInfo(
        metrics,
        asdict(settings),
        seed,
        len(genomes),
        len(held_out_indices(splits)),
        dict(provenance),
        metric,
        num_folds=len(splits) if len(splits) > 1 else 0,
        best_value=metric.sign * float((metric.sign * values).max()),
    )
    if trial.prefers_linear(splits, metrics):
        predictor = trial.linear_predictor(info)
    else:
        report = report_from(len(splits))
        predictor = fit_mlp(space, genomes, values, settings, seed, info, report, threads=threads)
    progress(total, total, "")
    return FitReport(predictor, metrics, splits)


@dataclass(frozen=True)
class Trial:
    """The models on trial for one set of records; the arguments are those of `fit_predictor`."""

    space: SearchSpace
    genomes: Genomes
    values: NDArray[np.float64]
    settings: FitSettings
    seed: int
    metric: Metric
    threads: int | None

    def mlp_metrics(
        self,
        splits: Sequence[Split],
        report_from: Callable[[int], Callable[[int, float], None]] = lambda number: _ignore,
    ) -> dict[str, float]:
        """Return the metrics of the MLP on the held-out records of all splits.

        Args:
            splits: splits of the records.
            report_from: takes the number of a split, and returns what is called with its iterations.
        """

        def predict(number: int, split: Split) -> NDArray[np.float64]:
            fitted, held_out = split.fit_indices, self.genomes[split.holdout_indices]
            predictor = fit_mlp(
                self.space,
                self.genomes[fitted],
                self.values[fitted],
                self.settings,
                self.seed,
                report=report_from(number),
                threads=self.threads,
            )
            return np.stack([predictor(held_out), predictor.uncertainty(held_out)], axis=1)

        predicted = np.concatenate([predict(number, split) for number, split in enumerate(splits)])
        values = self.values[held_out_indices(splits)]
        return _with_coverage(predicted[:, 0], predicted[:, 1], values, self.metric)

    def baseline_metrics(self, splits: Sequence[Split], baseline: Fit) -> dict[str, float]:
        """Return the metrics of a baseline on the held-out records of all splits."""
        features = self.space.encode(self.genomes)
        parts = []
        with blas_threads(self.threads):
            for split in splits:
                fitted = split.fit_indices
                regressor = fit_baseline(
                    baseline, features[fitted], self.values[fitted], self.seed, threads=None
                )
                parts.append(regressor(features[split.holdout_indices]))
        return accuracy_metrics(np.concatenate(parts), self.values[held_out_indices(splits)], self.metric)

    def prefers_linear(self, splits: Sequence[Split], metrics: Mapping[str, Mapping[str, float]]) -> bool:
        """Return whether ridge regression is clearly better than the MLP, by cross-validation of all records.

        A hold-out of many records only says whether that is worth the time.
        """
        if LINEAR not in metrics or not is_clearly_better(metrics[LINEAR], metrics["mlp"]):
            return False
        if len(splits) > 1:
            return True
        folds = fold_records(len(self.genomes), self.seed)
        return is_clearly_better(self.baseline_metrics(folds, BASELINES[LINEAR]), self.mlp_metrics(folds))

    def linear_predictor(self, info: PredictorInfo) -> AccuracyPredictor:
        """Return ridge regression on all records as a predictor without a hidden layer."""
        features = self.space.encode(self.genomes)
        regressor = fit_baseline(BASELINES[LINEAR], features, self.values, self.seed, threads=self.threads)
        deviation = info.metrics[LINEAR]["rmse_points"] / self.metric.scale
        return as_predictor(self.space, regressor, deviation, replace(info, model=LINEAR))


def _ignore(step: int, evidence: float) -> None:
    """Ignore an iteration."""


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
    predictor: AccuracyPredictor,
    genomes: Genomes,
    values: NDArray[np.float64],
    metric: Metric = DEFAULT_METRIC,
) -> dict[str, float]:
    """Return `accuracy_metrics` of a predictor and the share of values within their 90 % interval."""
    return _with_coverage(predictor(genomes), predictor.uncertainty(genomes), values, metric)


def _with_coverage(
    predicted: NDArray[np.float64],
    deviations: NDArray[np.float64],
    values: NDArray[np.float64],
    metric: Metric,
) -> dict[str, float]:
    is_inside = np.abs(predicted - values) <= COVERAGE_DEVIATIONS * deviations
    return {**accuracy_metrics(predicted, values, metric), "coverage": float(is_inside.mean())}
