"""How good a fitted predictor is, for the user: a table, and warnings."""

from __future__ import annotations

from rich.table import Table

from predictors.baselines import LINEAR, is_clearly_better
from predictors.model.predictor import PredictorInfo

HOLDOUT_METRICS = ("rmse_points", "kendall_tau", "spearman")
MIN_TAU = 0.5
MIN_HELD_OUT = 20


def format_metrics(info: PredictorInfo) -> Table:
    """Return a table of the metrics of the MLP and the baselines on held-out records, side by side."""
    held_out = f"On {info.num_holdout} held-out of {info.num_records} sub-networks"
    if info.num_folds:
        held_out = f"By {info.num_folds}-fold cross-validation of {info.num_records} sub-networks"
    table = Table(title=held_out)
    table.add_column("predictor")
    metric = info.metric
    rmse = f"RMSE (points of {metric.title})" if metric.is_fraction else f"RMSE of {metric.title}"
    for title in (rmse, "Kendall tau", "Spearman"):
        table.add_column(title, justify="right")
    for name, values in info.metrics.items():
        table.add_row(name, *(f"{values[key]:.3f}" for key in HOLDOUT_METRICS))
    coverage = info.metrics["mlp"]["coverage"]
    text = f"{100 * coverage:.0f} % inside the 90 % intervals; then fitted on all {info.num_records}"
    if info.model != "mlp":
        text = f"{info.model} is clearly better and used instead, fitted on all {info.num_records}"
    table.caption = text
    return table


def warnings(info: PredictorInfo) -> list[str]:
    """Return what speaks against trusting a predictor, one sentence each; none for one without metrics."""
    metrics = info.metrics.get(info.model)
    if metrics is None:
        return []
    texts = []
    if metrics["kendall_tau"] < MIN_TAU:
        texts.append(
            f"warning: Kendall tau of held-out sub-networks is {metrics['kendall_tau']:.2f}, below "
            f"{MIN_TAU}: the predictor hardly ranks networks. More records help, or more "
            "validation images behind each."
        )
    if info.num_holdout < MIN_HELD_OUT:
        texts.append(
            f"warning: the predictor is judged on {info.num_holdout} held-out sub-networks; fewer than "
            f"{MIN_HELD_OUT} say little. Collect more records."
        )
    better = [
        name
        for name, values in info.metrics.items()
        if name not in ("mlp", LINEAR) and is_clearly_better(values, metrics)
    ]
    if better:
        texts.append(
            f"note: {', '.join(better)} would be clearly better, but of the baselines only {LINEAR} can be "
            "stored as plain numbers."
        )
    return texts
