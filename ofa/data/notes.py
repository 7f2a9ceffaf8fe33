"""Lines for the user about a folder of photographs: what is in it, how it is split, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa.data.catalogue import Catalogue
from ofa.data.layout import Layout, SplitFolders
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
        split_line(layout, {split: sum(numbers) for split, numbers in counts.items()}),
    ]
    empty_names = [
        name for name, count in zip(layout.class_names, counts["validation"], strict=True) if not count
    ]
    if empty_names:
        lines.append(f"no photograph for validation of {listed(empty_names, MAX_LISTED_CLASSES)}")
    lines.append(left_out_note(catalogue.left_out))
    lines.append(unused_line(layout.unused, layout.folders["train"].name))
    if catalogue.unreadable:
        lines.append(
            f"{len(catalogue.unreadable)} photographs skipped that cannot be read: "
            f"{listed(catalogue.unreadable, MAX_LISTED_FILES)}"
        )
    lines.append(transparency_line(catalogue))
    return tuple(line for line in lines if line)


def _class_line(names: Sequence[str], totals: Sequence[int]) -> str:
    if len(names) <= MAX_LISTED_CLASSES:
        pairs = ", ".join(f"{name} {total}" for name, total in zip(names, totals, strict=True))
        return f"{sum(totals)} photographs of {len(names)} classes: {pairs}"
    return f"{sum(totals)} photographs of {len(names)} classes, {min(totals)} to {max(totals)} per class"


def split_line(layout: SplitFolders, sizes: Mapping[str, int]) -> str:
    """Return the sizes of the splits, and where each comes from."""
    train = layout.folders["train"]
    source = f"{train.name}/" if train != layout.root else "all"
    parts = [f"{sizes['train']} for training"]
    for split, purpose in (("validation", "validation"), ("test", "the final test")):
        folder = layout.folders.get(split)
        origin = f"cut from {source}" if folder is None else f"all of {folder.name}/"
        parts.append(f"{sizes[split]} for {purpose} ({origin})")
    return ", ".join(parts)


def unused_line(unused: Sequence[str], neighbour: str) -> str:
    """Return the line about folders that are not read, beside the folder `neighbour`; empty without any."""
    names = ", ".join(f"{name}/" for name in unused)
    return f"not read: {names} beside {neighbour}/" if unused else ""


def transparency_line(catalogue: Catalogue) -> str:
    """Return the line about transparent photographs; empty if there are none."""
    count = catalogue.num_transparent
    return f"{count} photographs with an alpha channel are laid on white" if count else ""


def listed(texts: Sequence[str], max_shown: int) -> str:
    """Return the first texts with commas between them, and how many more there are."""
    more = f" and {len(texts) - max_shown} more" if len(texts) > max_shown else ""
    return ", ".join(texts[:max_shown]) + more
