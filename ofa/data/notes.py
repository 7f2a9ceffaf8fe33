"""Lines for the user about a folder of photographs: what is in it, how it is split, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa.data.catalogue import Catalogue
from ofa.data.layout import Layout
from ofa.data.listing import left_out_note

MAX_LISTED_CLASSES = 10
MAX_LISTED_FILES = 5


def folder_notes(
    layout: Layout, catalogue: Catalogue, counts: Mapping[str, Sequence[int]]
) -> tuple[str, ...]:
    """Return the lines about a folder.

    Args:
        layout: folders of the set.
        catalogue: its photographs.
        counts: photographs per class of each split.
    """
    lines = [
        _class_line(layout.class_names, [sum(numbers) for numbers in zip(*counts.values(), strict=True)]),
        _split_line(layout, counts),
    ]
    empty_names = [
        name for name, count in zip(layout.class_names, counts["validation"], strict=True) if not count
    ]
    if empty_names:
        lines.append(f"no photograph for validation of {_listed(empty_names, MAX_LISTED_CLASSES)}")
    lines.append(left_out_note(catalogue.left_out))
    if layout.unused:
        names = ", ".join(f"{name}/" for name in layout.unused)
        lines.append(f"not read: {names} beside {layout.folders['train'].name}/")
    if catalogue.unreadable:
        lines.append(
            f"{len(catalogue.unreadable)} photographs skipped that cannot be read: "
            f"{_listed(catalogue.unreadable, MAX_LISTED_FILES)}"
        )
    if catalogue.num_transparent:
        lines.append(f"{catalogue.num_transparent} photographs with an alpha channel are laid on white")
    return tuple(line for line in lines if line)


def _class_line(names: Sequence[str], totals: Sequence[int]) -> str:
    if len(names) <= MAX_LISTED_CLASSES:
        pairs = ", ".join(f"{name} {total}" for name, total in zip(names, totals, strict=True))
        return f"{sum(totals)} photographs of {len(names)} classes: {pairs}"
    return f"{sum(totals)} photographs of {len(names)} classes, {min(totals)} to {max(totals)} per class"


def _split_line(layout: Layout, counts: Mapping[str, Sequence[int]]) -> str:
    """Return the sizes of the splits, and where each comes from."""
    train = layout.folders["train"]
    source = f"{train.name}/" if train != layout.root else "all"
    parts = [f"{sum(counts['train'])} for training"]
    for split, purpose in (("validation", "validation"), ("test", "the final test")):
        folder = layout.folders.get(split)
        origin = f"cut from {source}" if folder is None else f"all of {folder.name}/"
        parts.append(f"{sum(counts[split])} for {purpose} ({origin})")
    return ", ".join(parts)


def _listed(texts: Sequence[str], max_shown: int) -> str:
    more = f" and {len(texts) - max_shown} more" if len(texts) > max_shown else ""
    return ", ".join(texts[:max_shown]) + more
