"""`save_png`: a figure as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG with 150 dots per inch, whatever the ending of the path."""
    figure.savefig(path, dpi=150, format="png")
