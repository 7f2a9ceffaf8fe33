"""A classification for people: a table, a contact sheet, and CSV and JSON files of all answers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table
from rich.text import Text

from ofa.common.errors import UserError
from ofa.common.files import json_writer, write_together
from ofa.common.locks import sole_writer
from ofa.common.metric import TOP1
from ofa.data.pictures import UnreadableError, read_picture
from ofa.data.sheet import picture_sheet
from ofa.data.views import shrunk_view
from ofa.export.classify import NUM_ANSWERS, Answer, Classification

MAX_ROWS, MAX_LISTED = 40, 20
MAX_PICTURES, COLUMNS, SIDE = 96, 8, 150
WRONG_COLOUR = "#c1121f"


def answers_table(result: Classification, root: Path) -> Table:
    """Return a table of the first `MAX_ROWS` answers; files are named from `root`."""
    table = Table(box=None, pad_edge=False)
    table.add_column("picture", overflow="fold", ratio=1)
    headers = ["class", "%", "next"]
    has_labels = result.confusion is not None
    for header in [*headers, "ms", *(["true class"] if has_labels else [])]:
        table.add_column(header, justify="right" if header in ("%", "ms") else "left")
    for answer in result.answers[:MAX_ROWS]:
        (name, share), *others = answer.classes
        rest = ", ".join(f"{other}: {_percent(value)}" for other, value in others)
        cells = [shown_path(answer.path, root), name, _percent(share), rest, f"{answer.run_ms:.2f}"]
        if has_labels:
            cells.append(f"{answer.label} (wrong)" if answer.is_wrong else answer.label or "")
        table.add_row(*map(Text, cells), style="red" if answer.is_wrong else None)
    return table


def result_lines(result: Classification, root: Path) -> list[str]:
    """Return the lines below the table: what is not shown or cannot be read, accuracy and speed."""
    lines = []
    if len(result.answers) > MAX_ROWS:
        lines.append(f"and {len(result.answers) - MAX_ROWS} more pictures")
    if result.unreadable:
        entries = list(result.unreadable.items())
        count = f"{len(entries)} of {len(entries) + len(result.answers)}"
        lines.append(f"skipped, because they cannot be read as an image: {count}")
        lines += [f"  {shown_path(path, root)} ({reason})" for path, reason in entries[:MAX_LISTED]]
        lines += [f"  and {len(entries) - MAX_LISTED} more"] if len(entries) > MAX_LISTED else []
    if result.confusion is not None:
        total = result.confusion.total
        accuracy = TOP1.show_with_error(result.confusion.metrics[TOP1.name], total)
        lines.append(f"{TOP1.title}: {accuracy} (standard error of {total} pictures in folders of a class)")
    threads = f"{result.num_threads} thread{'s' * (result.num_threads > 1)}"
    return [
        *lines,
        f"{result.run_ms:.2f} ms an image: {result.file} in {result.engine}, one at a time, {threads}",
        f"{result.reading_ms:.1f} ms to read and scale a picture",
    ]


def save_results(result: Classification, path: Path, root: Path) -> str:
    """Write a contact sheet, and the answers as CSV and JSON beside it; return their paths as text.

    Args:
        result: the classification.
        path: file of the sheet, which ends in .png.
        root: folder of the pictures, from which files are named.

    Raises:
        UserError: if a file cannot be written.
    """
    sheet = contact_sheet(result.answers)
    with sole_writer(path, "contact sheet", setting="output"):
        write_together(
            {
                path.with_suffix(".json"): json_writer(_values(result, root)),
                path.with_suffix(".csv"): lambda temporary: _write_csv(result, temporary, root),
                path: lambda temporary: sheet.save(temporary, format="png"),
            }
        )
    shown = min(len(result.answers), MAX_PICTURES)
    count = f" of {shown} of {len(result.answers)} pictures" if shown < len(result.answers) else ""
    first = ", wrong ones first" if count and result.confusion is not None else ""
    names = f"{path.with_suffix('.csv').name} and {path.with_suffix('.json').name}"
    return f"{path}: contact sheet{count}{first}; all answers beside it in {names}"


def contact_sheet(answers: Sequence[Answer]) -> Image.Image:
    """Return thumbnails with class, probability and file name; wrong ones first, with a red border.

    Of more than `MAX_PICTURES` it shows an even choice.
    """
    images, captions, colours = [], [], []
    wrong = _spread([answer for answer in answers if answer.is_wrong], MAX_PICTURES)
    others = [answer for answer in answers if not answer.is_wrong]
    for answer in [*wrong, *_spread(others, MAX_PICTURES - len(wrong))]:
        try:
            images.append(read_picture(answer.path, partial(shrunk_view, short_side=SIDE)))
        except UnreadableError:  # removed since it was classified
            images.append(Image.new("RGB", (SIDE, SIDE), "grey"))
        name, share = answer.classes[0]
        truth = f"true class: {answer.label}\n" if answer.is_wrong else ""
        captions.append(f"{name}: {_percent(share)} %\n{truth}{shown_path(answer.path, answer.path.parent)}")
        colours.append(WRONG_COLOUR if answer.is_wrong else None)
    return picture_sheet(images, captions, columns=COLUMNS, side=SIDE, colours=colours)


def _spread(answers: Sequence[Answer], limit: int) -> list[Answer]:
    """Return at most `limit` answers at even distances."""
    count = min(limit, len(answers))
    return [answers[position * len(answers) // count] for position in range(count)]


def sheet_path(output: str | None, images: Path) -> Path | None:
    """Return where the contact sheet of pictures is written; None for a single picture without `output`.

    Args:
        output: file that the user asks for; None for `classified-FOLDER.png` in the working folder.
        images: folder of the pictures, or a single one.

    Raises:
        UserError: if the file does not end in .png, would be in the folder of the pictures, or is there and
            was not written by this command.
    """
    if output is None and not images.is_dir():
        return None
    path = Path(f"classified-{images.resolve().name}.png" if output is None else output).expanduser()
    if path.suffix != ".png":
        raise UserError(f"output is {output!r}; expected a file that ends in .png.")
    if images.is_dir() and path.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"The contact sheet {path} would be in the folder of the pictures, {images.resolve()}. Give "
            "output=FILE.png in another folder."
        )
    if path.exists() and not path.with_suffix(".json").exists():
        raise UserError(f"{path} exists and is no contact sheet of a classification; give output=FILE.png.")
    return path


def shown_path(path: Path, root: Path) -> str:
    """Return the path from `root` on as text that can be printed; other characters are escaped."""
    text = str(path.relative_to(root) if path.is_relative_to(root) else path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _values(result: Classification, root: Path) -> dict[str, Any]:
    confusion = result.confusion
    return {
        "network": result.network,
        "file": result.file,
        "engine": result.engine,
        "threads": result.num_threads,
        "median_ms": result.run_ms,
        "reading_ms": result.reading_ms,
        "images": shown_path(root.resolve(), Path()),
        "labelled": None if confusion is None else confusion.to_dict(),
        "unreadable": {shown_path(path, root): reason for path, reason in result.unreadable.items()},
        "answers": [
            {
                "file": shown_path(answer.path, root),
                "classes": [{"class": name, "probability": share} for name, share in answer.classes],
                "ms": answer.run_ms,
                "true_class": answer.label,
            }
            for answer in result.answers
        ],
    }


def _write_csv(result: Classification, path: Path, root: Path) -> None:
    """Write a row per picture; of those that cannot be read it holds the reason alone."""
    places = [f"{name}{place}" for place in ("", "_2", "_3") for name in ("class", "probability")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *places, "ms", "true_class", "problem"])
        for answer in result.answers:
            cells = [cell for name, share in answer.classes for cell in (name, f"{share:.6f}")]
            cells += [""] * (2 * NUM_ANSWERS - len(cells))
            writer.writerow(
                [shown_path(answer.path, root), *cells, f"{answer.run_ms:.4f}", answer.label or "", ""]
            )
        for picture, reason in result.unreadable.items():
            writer.writerow([shown_path(picture, root), *[""] * (len(places) + 2), reason])
