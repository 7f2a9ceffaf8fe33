"""How far the predictions of a search can be trusted, as lines for the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from search.result.result import SearchResult


@dataclass(frozen=True)
class PredictionFacts:
    """What is known of the estimator of a search.

    Attributes:
        deviation: standard deviation of a measured value around the prediction for the best network; None
            if it is not known.
        best_measured: best measured value behind the estimator; None if it is not known.
    """

    deviation: float | None = None
    best_measured: float | None = None


def prediction_lines(result: SearchResult, facts: PredictionFacts) -> list[str]:
    """Return the prediction for the best network with its ±, and warnings where it should not be trusted."""
    metric, predicted, deviation = result.metric, result.best.accuracy, facts.deviation
    if deviation is None:
        lines = [f"predicted {metric.title}: {metric.show(predicted)}"]
    else:
        values = metric.show_range(predicted, deviation)
        lines = [f"predicted {metric.title}: {values} (standard deviation of a measurement)"]
    best = facts.best_measured
    if best is not None and metric.sign * predicted > metric.sign * best:
        lines.append(
            f"warning: {metric.show(predicted)} is predicted, the best measured of the predictor's records "
            f"is {metric.show(best)}: a prediction beyond all records is a guess; measure the network."
        )
    values_of_front = [candidate.accuracy for candidate in result.front]
    spread = max(values_of_front) - min(values_of_front)
    if deviation is not None and len(values_of_front) > 1 and spread < deviation:
        lines.append(
            f"warning: the {len(values_of_front)} networks of the front are predicted within "
            f"{metric.scale * spread:.1f} of each other, less "
            f"than the ± of a prediction: it does not rank them."
        )
    return lines
