"""Lines for the user about images with labels or numbers: what they tell, splits, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ofa.common.metric import number_text
from ofa.data.listing import left_out_note
from ofa.data.notes import MAX_LISTED_CLASSES, MAX_LISTED_FILES, listed, transparency_line
from ofa.data.table_catalogue import TableCatalogue
from ofa.data.table_targets import is_unknown, label_counts, unknown_rows


def table_notes(catalogue: TableCatalogue, values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the lines about a table and its images.

    Args:
        catalogue: the images.
        values: targets of each split (n, names).
    """
    numbers = catalogue.targets.is_floating_point()
    lines = [_numbers_line(catalogue) if numbers else _labels_line(catalogue), _split_line(catalogue, values)]
    if num_unknown := int(is_unknown(catalogue.targets).sum()):
        kind = "numbers" if numbers else "labels"
        lines.append(f"{num_unknown} {kind} are unknown and count nowhere")
    if num_empty := int(unknown_rows(catalogue.targets).sum()):
        lines.append(f"{num_empty} images of which nothing is known")
    if not numbers:
        lines += _rare_lines(catalogue.names, values)
    if catalogue.without_row:
        lines.append(
            f"{len(catalogue.without_row)} images left out that have no row: "
            f"{listed(catalogue.without_row, MAX_LISTED_FILES)}"
        )
    lines.append(left_out_note(catalogue.left_out))
    if catalogue.unreadable:
        lines.append(
            f"{len(catalogue.unreadable)} images skipped that cannot be read: "
            f"{listed(catalogue.unreadable, MAX_LISTED_FILES)}"
        )
    lines.append(transparency_line(catalogue))
    return tuple(line for line in lines if line)


def _labels_line(catalogue: TableCatalogue) -> str:
    positive, _ = label_counts(catalogue.targets)
    names, total = catalogue.names, len(catalogue.paths)
    if len(names) > MAX_LISTED_CLASSES:
        return f"{total} images with {len(names)} labels, each on {min(positive)} to {max(positive)} images"
    pairs = ", ".join(f"{name} {count}" for name, count in zip(names, positive, strict=True))
    return f"{total} images with {len(names)} labels: {pairs}"


def _numbers_line(catalogue: TableCatalogue) -> str:
    texts = []
    for name, column in zip(catalogue.names, catalogue.targets.T, strict=True):
        known = column[~column.isnan()]
        bounds = [number_text(float(bound)) for bound in torch.aminmax(known)] if len(known) else ["nothing"]
        texts.append(f"{name} {' to '.join(bounds)}")
    return f"{len(catalogue.paths)} images with {len(texts)} numbers: {listed(texts, MAX_LISTED_CLASSES)}"


def _split_line(catalogue: TableCatalogue, values: Mapping[str, Tensor]) -> str:
    named = set(catalogue.folders.tolist())
    source = "all" if catalogue.table.splits is None else "those for training"
    parts = [f"{len(values['train'])} for training"]
    for split, purpose in (("validation", "validation"), ("test", "the final test")):
        origin = "as the table says" if split in named else f"cut from {source}"
        parts.append(f"{len(values[split])} for {purpose} ({origin})")
    return ", ".join(parts)


def _rare_lines(names: Sequence[str], values: Mapping[str, Tensor]) -> list[str]:
    """Return lines about labels that no image has, or that all have, in training and validation."""
    lines = []
    for split, purpose in (("train", "training"), ("validation", "validation")):
        for kind, counts in zip(("with", "without"), label_counts(values[split]), strict=True):
            missing = [name for name, count in zip(names, counts, strict=True) if not count]
            if missing:
                lines.append(f"no image for {purpose} {kind} {listed(missing, MAX_LISTED_CLASSES)}")
    return lines
