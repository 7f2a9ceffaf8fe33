"""A search result as tables and text: CSV for other programs, a short report for the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ofa.common.latency_target import deviation_text
from ofa.common.metric import DEFAULT_METRIC, Metric
from search.limits.limit import Limit, number_texts
from search.reports.comparison import compare_networks, comparison_table, gain_lines
from search.reports.predictions import Predictions
from search.reports.trust import PredictionFacts, prediction_lines
from search.result.result import SearchResult
from search.result.verification import Verification
from search.verified.correction import MAX_MARGIN

SHOWN_ROWS = 12


def save_csv(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def front_rows(result: SearchResult) -> list[list[str]]:
    """Return the front as a table, cheapest first: id, accuracy, limited quantities, network as JSON."""
    names = [limit.name for limit in result.limits]
    rows = [["id", "accuracy", *names, "subnet"]]
    for candidate in result.front:
        numbers = [f"{candidate.accuracy:.9g}", *(f"{candidate.values[name]:.9g}" for name in names)]
        rows.append([candidate.config.id, *numbers, json.dumps(candidate.config.to_dict())])
    return rows


def report(result: SearchResult, limits: Sequence[Limit], predictions: Predictions | None = None) -> str:
    """Return lines for the terminal: rows of the front, the best network in words, and what was gained.

    A verified search adds predicted and measured values. `predictions` add costs, the ± of predictions, and
    the networks that the best one is compared with.
    """
    verification = result.verification
    tables = [front_table(result, predictions=predictions)]
    if verification and verification.networks:
        tables.append(verified_table(verification, limits[0], result.metric))
    rows = compare_networks(result, limits, predictions) if predictions else []
    if predictions:
        tables.append(comparison_table(rows, result, predictions))
    lines = [_text(tables), *best_lines(result), *_limit_lines(result, limits)]
    if verification and verification.margin >= MAX_MARGIN:
        lines.append(
            "The processes differ by more than the margin allows: something else keeps the device "
            "busy. Search again when it is quiet."
        )
    facts = predictions.facts(result.best.config) if predictions else PredictionFacts()
    gains = gain_lines(rows, result.metric) if predictions else []
    return "\n".join([*lines, *prediction_lines(result, facts), *gains])


def _text(tables: Sequence[Table]) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=200, markup=False)
    for table in tables:
        console.print(table, "", sep="\n")
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines()) + "\n"


def best_lines(result: SearchResult) -> list[str]:
    """Return the best network in words, a line for each of its parts."""
    config = result.best.config
    first = f"best of {result.evaluations} candidates, found in {result.seconds:.1f} s: {config.id}"
    legend = [f"({config.legend})"] if config.legend else []
    return [first, *(f"  {line}" for line in (*config.lines, *legend))]


def _limit_lines(result: SearchResult, limits: Sequence[Limit]) -> list[str]:
    """Return a line per limit: the best network's value, its share of the bound, and its origin."""
    lines = []
    for limit in limits:
        value = result.best.values[limit.name]
        bound = ""
        if limit.bounded:
            bound = f", {100 * value / limit.maximum:.0f} % of the limit {limit.show(limit.maximum)}"
        lines.append(f"{limit.name}: {limit.show(value, 4)}{bound}")
        if result.verification and result.verification.quantity == limit.name:
            lines[-1] += _measured_text(result.verification, limit)
    return lines


def _measured_text(verification: Verification, limit: Limit) -> str:
    """Return the origin of the best network's value: predicted or measured."""
    networks = [n for n in verification.networks if n.config.id == verification.best_id]
    if not networks:
        return ", predicted; not measured yet"
    processes = sum(map(len, networks[0].measurements))
    deviation = deviation_text(networks[0].predicted, networks[0].measured)
    predicted = limit.show(networks[0].predicted, 4)
    return f", measured in {processes} processes: {deviation} (predicted {predicted})"


def verified_table(verification: Verification, limit: Limit, metric: Metric = DEFAULT_METRIC) -> Table:
    """Return a table of all measured networks, the most accurate first."""
    title = (
        f"measured {len(verification.networks)} networks; near the limit measured / predicted is "
        f"{verification.scale:.3f}; margin {100 * verification.margin:.1f} %"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in (
        f"predicted\n{metric.heading}",
        f"predicted\n{limit.unit}",
        f"measured\n{limit.unit}",
        "% of\nlimit",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("", "id"):
        table.add_column(header, no_wrap=True)
    for network in verification.networks:
        share = f"{100 * network.measured / limit.maximum:.1f}"
        side = "inside" if verification.keeps(network, limit.maximum) else "outside"
        mark = "chosen" if network.config.id == verification.best_id else side
        accuracy = f"{metric.scale * network.accuracy:.2f}"
        figures = (accuracy, f"{network.predicted:.4g}", f"{network.measured:.4g}")
        table.add_row(*figures, share, mark, network.config.id)
    return table


def front_table(
    result: SearchResult, rows: int = SHOWN_ROWS, predictions: Predictions | None = None
) -> Table:
    """Return a table of `rows` candidates of the front, evenly spaced in the order of its first quantity.

    `predictions` add the ± of the predicted values, MACs and parameters.
    """
    shown = np.unique(np.linspace(0, len(result.front) - 1, min(rows, len(result.front))).astype(int))
    candidates, metric = [result.front[index] for index in shown], result.metric
    configs = [candidate.config for candidate in candidates]
    columns = [
        (limit.heading, number_texts([c.values[limit.name] for c in candidates], 4))
        for limit in result.limits
    ]
    columns.append((f"predicted\n{metric.heading}", [f"{metric.scale * c.accuracy:.2f}" for c in candidates]))
    if predictions is not None:
        deviations = predictions.deviations(configs)
        if deviations is not None:
            columns.append(("±", [f"{metric.scale * value:.{metric.digits}f}" for value in deviations]))
        names = [limit.name for limit in result.limits]
        groups = [predictions.genomes([config]) for config in configs]
        columns += [(column.heading, [*column.texts]) for column in predictions.cost_columns(groups, names)]
    columns.append(("input\npx", [str(config.resolution) for config in configs]))
    columns += [(name, [str(config.facts[name]) for config in configs]) for name in configs[0].facts]
    table = Table(
        title=f"front: {len(shown)} of {len(result.front)} networks",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    for *cells, config in zip(*(texts for _, texts in columns), configs, strict=True):
        table.add_row(*cells, config.id)
    return table
