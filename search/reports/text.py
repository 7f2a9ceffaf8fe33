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

import ofa.common.files
from ofa.common.metric import TOP1, Metric
from search.limits.limit import Limit
from search.reports.trust import PredictionFacts, prediction_lines
from search.result.result import SearchResult
from search.result.verification import Verification
from search.verified.correction import MAX_MARGIN

SHOWN_ROWS = 12


def write_table(result: SearchResult, path: Path) -> None:
    """Write the front as CSV, cheapest first: id, accuracy, each limited quantity, the network as JSON.

    Raises:
        UserError: if the file cannot be written.
    """
    names = [limit.name for limit in result.limits]
    rows = [["id", "accuracy", *names, "subnet"]]
    for candidate in result.front:
        numbers = [f"{candidate.accuracy:.9g}", *(f"{candidate.values[name]:.9g}" for name in names)]
        rows.append([candidate.config.id, *numbers, json.dumps(candidate.config.to_dict())])

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    ofa.common.files.write_atomic(path, write)


def report(result: SearchResult, limits: Sequence[Limit], facts: PredictionFacts | None = None) -> str:
    """Return lines for the terminal: rows of the front, cost of the search, the best and its quantities.

    A verified search adds predicted and measured values. `facts` say how far predictions can be trusted.
    """
    best, verification = result.best, result.verification
    buffer = io.StringIO()
    console = Console(file=buffer, width=200)
    console.print(front_table(result))
    if verification and verification.networks:
        console.print("\n", verified_table(verification, limits[0], result.metric), sep="")
    summary = f"found in {result.seconds:.2f} s, {result.evaluations} candidates: {best.config}"
    lines = [buffer.getvalue().rstrip(), summary]
    for limit in limits:
        bound = f" of {limit.show(limit.maximum)}" if limit.bounded else ""
        lines.append(f"{limit.name}: {limit.show(best.values[limit.name])}{bound}")
        if verification and verification.quantity == limit.name:
            lines[-1] += _measured_text(verification, limit)
    if verification and verification.margin >= MAX_MARGIN:
        lines.append(
            "The processes differ by more than the margin allows: something else keeps the device "
            "busy. Search again when it is quiet."
        )
    return "\n".join([*lines, *prediction_lines(result, facts or PredictionFacts())])


def _measured_text(verification: Verification, limit: Limit) -> str:
    """Return the origin of the best network's value: predicted or measured."""
    networks = [n for n in verification.networks if n.config.id == verification.best_id]
    if not networks:
        return ", predicted; not measured yet"
    processes = sum(map(len, networks[0].measurements))
    return f", measured in {processes} processes; {limit.show(networks[0].predicted)} predicted"


def verified_table(verification: Verification, limit: Limit, metric: Metric = TOP1) -> Table:
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


def front_table(result: SearchResult, rows: int = SHOWN_ROWS) -> Table:
    """Return a table of `rows` candidates of the front, evenly spaced in the order of its first quantity."""
    shown = np.unique(np.linspace(0, len(result.front) - 1, min(rows, len(result.front))).astype(int))
    title = f"front: {len(shown)} of {len(result.front)} networks"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for limit in result.limits:
        header = limit.name if limit.name.endswith(f"_{limit.unit}") else limit.label
        table.add_column(header.replace(" ", "\n"), justify="right", no_wrap=True)
    metric = result.metric
    for header in (f"predicted\n{metric.heading}", "input\npx", *result.best.config.facts):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    for index in shown:
        candidate = result.front[index]
        values = (f"{candidate.values[limit.name]:.4g}" for limit in result.limits)
        config = candidate.config
        figures = (f"{metric.scale * candidate.accuracy:.2f}", f"{config.resolution}")
        table.add_row(*values, *figures, *map(str, config.facts.values()), config.id)
    return table
