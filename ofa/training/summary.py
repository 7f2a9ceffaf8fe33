"""Summary of a finished training run: `summary.json`, and a line in the table of all runs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from ofa.common.errors import UserError
from ofa.common.files import write_atomic, write_json
from ofa.common.locks import sole_writer
from ofa.common.metric import Metric, indistinct
from ofa.common.reading import read_text


@dataclass(frozen=True)
class RunSummary:
    """Summary of a finished training.

    Attributes:
        run_name: name of the run.
        space: name of the space.
        data: name of the image set.
        steps: number of steps.
        images_per_step: images per step, over all processes.
        processes: number of processes.
        device: device of the training.
        seconds_per_phase: seconds spent in the steps of each phase, over all starts.
        data_wait_share: share of that time (0..1) that the first process spent waiting for images.
        metric: name of the task's metric.
        scores: validation values of named sub-networks, on part of the images.
        peak_memory_mb: peak memory of the first process in MB.
        more_scores: further metrics of the same sub-networks by name, if they are worth a word.
        num_images: number of validation images behind the scores.
    """

    run_name: str
    space: str
    data: str
    steps: int
    images_per_step: int
    processes: int
    device: str
    seconds_per_phase: Mapping[str, float]
    data_wait_share: float
    metric: str
    scores: Mapping[str, float]
    peak_memory_mb: float
    more_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    num_images: int = 0

    def lines(self, metrics: Sequence[Metric]) -> list[str]:
        """Return lines for the user: the scores with their standard error, and what they cannot tell.

        Args:
            metrics: metrics of the task; the first is that of `scores`.
        """
        metric, lines = metrics[0], []
        has_error = metric.standard_error(0.5, self.num_images) is not None
        words = f" (standard error of {self.num_images} images)" if has_error else ""
        for name, value in self.scores.items():
            text = (
                f"validation {metric.title}, {name:9s}{metric.show_with_error(value, self.num_images):>13s}"
            )
            more = self.more_scores.get(name, {})
            shown = [f"; {m.title} {m.show(more[m.name])}" for m in metrics if m.name in more]
            lines.append("".join([text, *shown, words]))
            words = ""
        named = {name: value for name, value in self.scores.items() if name != "random"}
        warning = indistinct(metric, [*named.values()], self.num_images)
        return [*lines, f"{', '.join(named)} {warning}"] if warning else lines

    def write(self, folder: Path, table: Path) -> None:
        """Write `summary.json` into `folder` and this run's line into `table`, replacing an older one.

        Raises:
            UserError: if a file cannot be written, or `table` is not a table of runs.
        """
        stamp = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__}
        values = dataclasses.asdict(self)
        values[values.pop("metric")] = values.pop("scores")
        write_json(folder / "summary.json", {**stamp, **values})
        row = stamp | {
            "run_name": self.run_name,
            "space": self.space,
            "data": self.data,
            "processes": str(self.processes),
            "device": self.device,
            "steps": str(self.steps),
            "seconds": f"{sum(self.seconds_per_phase.values()):.0f}",
            "seconds_per_phase": json.dumps({n: round(s) for n, s in self.seconds_per_phase.items()}),
            "data_wait_share": f"{self.data_wait_share:.4f}",
            **{f"{self.metric}_{name}": f"{value:.4f}" for name, value in self.scores.items()},
            "peak_memory_mb": f"{self.peak_memory_mb:.0f}",
        }
        with sole_writer(table, "table of runs", setting="runs_dir", patience_s=60.0):
            _replace_row(table, row)


def _replace_row(table: Path, row: Mapping[str, str]) -> None:
    rows: list[dict[str, str]] = []
    if table.exists():
        text = read_text(table, "table of runs")
        try:
            rows = [dict(entry) for entry in csv.DictReader(io.StringIO(text, newline=""))]
        except csv.Error:
            rows = [{}]
        if any(None in entry or "run_name" not in entry for entry in rows):
            raise UserError(f"{table} is not a table of runs; move it away so that a new one can be written.")
    rows = [entry for entry in rows if entry["run_name"] != row["run_name"]] + [dict(row)]
    names = list(dict.fromkeys(name for entry in rows for name in entry))

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)

    write_atomic(table, write)
