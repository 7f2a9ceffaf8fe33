"""How a classifier takes classes for each other: a few lines, a figure, and a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.common.files import json_writer, write_together
from ofa.common.locks import sole_writer
from ofa.common.metric import TOP5
from ofa.evaluation.confusion import Confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERED, MAX_NAMED = 30, 100
"""Of more classes the figure has no numbers in its cells, and no names at its sides."""
CELL_INCHES, NAMED_INCHES, MIN_INCHES, MAX_INCHES = 0.36, 0.16, 2.6, 16.0
NUM_LISTED = 3


def confusion_lines(confusion: Confusion) -> list[str]:
    """Return lines for the terminal: top-5 if counted, the worst classes, the most frequent mistakes."""
    lines = []
    if confusion.num_top5 is not None:
        value = confusion.metrics[TOP5.name]
        lines.append(f"{TOP5.title}: {TOP5.show_with_error(value, confusion.total)}")
    worst, mistakes = confusion.worst_classes(NUM_LISTED), confusion.frequent_mistakes(NUM_LISTED)
    if not worst:
        return [*lines, f"every {confusion.unit} is classified right"]
    lines.append(f"worst classes: {'; '.join(map(str, worst))}")
    lines.append(f"most frequent mistakes: {'; '.join(map(str, mistakes))}")
    return lines


def confusion_summary(confusion: Confusion) -> str:
    """Return one line on a classifier: top-5 if counted, the worst class, the most frequent mistake."""
    parts = []
    if confusion.num_top5 is not None:
        parts.append(f"{TOP5.title} {TOP5.show(confusion.metrics[TOP5.name])}")
    worst, mistakes = confusion.worst_classes(1), confusion.frequent_mistakes(1)
    parts += [f"worst class {accuracy}" for accuracy in worst] + list(map(str, mistakes))
    return "; ".join(parts) if mistakes else "; ".join([*parts, "no mistake"])


def json_path(output: str) -> Path:
    """Return the setting `output` as the path of a JSON file.

    Raises:
        UserError: if it does not end in .json.
    """
    path = Path(output).expanduser()
    if path.suffix != ".json":
        raise UserError(f"output is {output!r}; expected a file that ends in .json.")
    return path


def save_confusion(confusion: Confusion, path: Path, title: str) -> str:
    """Write a JSON file and, with the same name, a .png; return their paths as text.

    Args:
        confusion: counts of a classifier.
        path: path of the JSON file.
        title: text above the figure: which network, on which images.

    Raises:
        UserError: if a file cannot be written.
    """
    figure = plot_confusion(confusion, title)
    png_path = path.with_suffix(".png")
    with sole_writer(path, "report", setting="output"):
        write_together(
            {
                path: json_writer({"title": title, **confusion.to_dict()}),
                png_path: lambda temporary: figure.savefig(temporary, dpi=120, format="png"),
            }
        )
    return f"{path}, {png_path.name}"


def plot_confusion(confusion: Confusion, title: str) -> Figure:
    """Return the figure of a confusion matrix, coloured by the share of each true class."""
    num_classes = len(confusion.class_names)
    inches = CELL_INCHES if num_classes <= MAX_NUMBERED else NAMED_INCHES
    side = min(max(inches * num_classes, MIN_INCHES), MAX_INCHES)
    # Loading it takes longer than all else that a command loads.
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side + 2.4, side + 1.6), layout="constrained")
    axes = figure.add_subplot()
    totals = confusion.counts.sum(axis=1, keepdims=True)
    shares = confusion.counts / np.maximum(totals, 1)
    # Cells without numbers are small: a steeper scale lets a few per cent be seen.
    norm = PowerNorm(1.0 if num_classes <= MAX_NUMBERED else 0.4, 0, 100)
    image = axes.imshow(100 * shares, cmap="Blues", norm=norm, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=f"% of the {confusion.unit}s of the class", shrink=0.8)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    if num_classes <= MAX_NAMED:
        names, positions = [_short(name) for name in confusion.class_names], range(num_classes)
        size = 8 if num_classes <= MAX_NUMBERED else 6
        is_long = max(map(len, names)) > 2
        axes.set_xticks(positions, names, rotation=90 if is_long else 0, fontsize=size)
        axes.set_yticks(positions, names, fontsize=size)
    if num_classes <= MAX_NUMBERED:
        _number_cells(axes, confusion.counts, shares)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _number_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    """Write the counts other than 0 into the cells."""
    for label, answer in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[label, answer] > 0.5 else "black"
        text = str(counts[label, answer])
        axes.text(answer, label, text, ha="center", va="center", fontsize=8, color=colour)
