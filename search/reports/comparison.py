"""What a search gained: its best network beside the smallest, the largest and random ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ofa.common.metric import Metric
from ofa.space.genes import Genomes, unique_rows
from search.limits.limit import Limit, feasible_rows, limit_values, number_texts
from search.reports.predictions import Predictions
from search.result.result import SearchResult

NUM_RANDOM = 100
MAX_DRAWS = 20_000
_DRAWS_AT_ONCE = 2000


@dataclass(frozen=True)
class ComparedNetworks:
    """One network, or the means of several.

    Attributes:
        name: what is compared, for users.
        genomes: the networks, shape (n, num_genes).
        accuracy: predicted value of the metric, the mean of several.
        deviation: standard deviation of a measured value around the prediction of one network, or of the
            predictions of several; None if it is not known.
        values: value of each limited quantity, the means of several.
        is_inside: whether all limits are kept.
    """

    name: str
    genomes: Genomes
    accuracy: float
    deviation: float | None
    values: tuple[float, ...]
    is_inside: bool

    @property
    def is_mean(self) -> bool:
        """Whether these are several networks."""
        return len(self.genomes) > 1


def compare_networks(
    result: SearchResult,
    limits: Sequence[Limit],
    predictions: Predictions,
    *,
    num_random: int = NUM_RANDOM,
    seed: int = 0,
) -> list[ComparedNetworks]:
    """Return the smallest and the largest network, the mean of random ones inside the limits, and the best.

    Args:
        result: result of the search.
        limits: limits of the search; random networks outside are drawn anew.
        predictions: estimators behind the search.
        num_random: number of random networks; fewer if `MAX_DRAWS` draws have no more inside, without any
            the row is left out.
        seed: seed of the draws.
    """
    space = predictions.space
    rows = [
        _one("smallest", predictions.genomes([space.smallest]), limits, predictions),
        _one("largest", predictions.genomes([space.largest]), limits, predictions),
    ]
    drawn = _random_inside(limits, predictions, num_random, np.random.default_rng(seed))
    if len(drawn) > 1:
        accuracies = predictions.accuracy(drawn)
        means = limit_values(limits, drawn).mean(axis=0)
        name = f"mean of {len(drawn)} random"
        mean, spread = float(accuracies.mean()), float(accuracies.std(ddof=1))
        rows.append(ComparedNetworks(name, drawn, mean, spread, tuple(map(float, means)), True))
    best = _one("best", predictions.genomes([result.best.config]), limits, predictions)
    # Of a verified search these are measured, and inside by that.
    values = tuple(result.best.values[limit.name] for limit in limits)
    return [*rows, dataclasses.replace(best, values=values, is_inside=True)]


def _one(name: str, genomes: Genomes, limits: Sequence[Limit], predictions: Predictions) -> ComparedNetworks:
    values = limit_values(limits, genomes)
    deviation = None if predictions.deviation is None else float(predictions.deviation(genomes)[0])
    return ComparedNetworks(
        name,
        genomes,
        float(predictions.accuracy(genomes)[0]),
        deviation,
        tuple(map(float, values[0])),
        bool(feasible_rows(limits, values)[0]),
    )


def _random_inside(
    limits: Sequence[Limit], predictions: Predictions, count: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """Return up to `count` distinct random networks inside the limits."""
    drawn = np.zeros((0, len(predictions.space.genes)), np.int8)
    for _ in range(MAX_DRAWS // _DRAWS_AT_ONCE):
        genomes = predictions.space.sample(_DRAWS_AT_ONCE, rng)
        genomes = genomes[feasible_rows(limits, limit_values(limits, genomes))]
        drawn = np.concatenate([drawn, genomes])
        drawn = drawn[np.sort(unique_rows(drawn))]
        if len(drawn) >= count:
            break
    return drawn[:count]


def comparison_table(
    rows: Sequence[ComparedNetworks], result: SearchResult, predictions: Predictions
) -> Table:
    """Return a table of compared networks: predicted metric with its ±, limited quantities and costs."""
    metric, names = result.metric, [limit.name for limit in result.limits]
    table = Table(
        title="what the search gained",
        caption="±: of a measurement; of random networks: between them",
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("network", no_wrap=True)
    headers = [f"predicted\n{metric.heading}", "±", *(limit.heading for limit in result.limits)]
    columns = predictions.cost_columns([row.genomes for row in rows], names)
    for header in (*headers, *(column.heading for column in columns), ""):
        table.add_column(header, justify="right", no_wrap=True)
    quantities = [number_texts(values) for values in zip(*(row.values for row in rows), strict=True)]
    for index, row in enumerate(rows):
        deviation = "-" if row.deviation is None else f"{metric.scale * row.deviation:.{metric.digits}f}"
        accuracy = f"{metric.scale * row.accuracy:.{metric.digits}f}"
        figures = (texts[index] for texts in (*quantities, *(column.texts for column in columns)))
        table.add_row(row.name, accuracy, deviation, *figures, "" if row.is_inside else "outside")
    return table


def gain_lines(rows: Sequence[ComparedNetworks], metric: Metric) -> list[str]:
    """Return how far the best is above the random networks, and whether the predictions can tell that."""
    best, randoms = rows[-1], [row for row in rows if row.is_mean]
    if not randoms:
        return [f"no random network of {MAX_DRAWS} keeps the limits: they leave little to choose from"]
    gain = metric.scale * metric.sign * (best.accuracy - randoms[0].accuracy)
    unit = "points" if metric.is_fraction else metric.title
    line = f"gain over random networks inside: {gain:.{metric.digits}f} {unit}"
    if best.deviation is None:
        return [line]
    deviation = metric.scale * best.deviation
    more = "more" if gain > deviation else "less"
    return [f"{line}, {more} than the ± {deviation:.{metric.digits}f} of a prediction"]
