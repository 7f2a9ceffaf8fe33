"""Draw the classes of the pixels of pictures with a bundle, e.g. `ofa segment bundle=largest images=DIR`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from classify import ClassifyConfig, open_pictures, picture_paths

from ofa.common.disk import check_writable
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
from ofa.launch import command


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(ClassifyConfig):
    """Settings of `conf/segment.yaml`."""


@command("segment", SegmentConfig)
def segment(config: SegmentConfig) -> Path:
    """Print the shares of the classes, write overlays and masks, and return their folder."""
    from ofa.export.engines import engine_title
    from ofa.export.segment import check_segmentation, segment_pictures
    from ofa.export.segmented import SHARES_FILE, SHEET_FILE, save_segmented

    images, root = picture_paths(config)
    folder = _output(config.output, images)
    check_writable(folder.absolute().parent)
    given = open_pictures(config, images, check_segmentation)
    bundle, file = given.bundle, given.file_key
    with progress_bar("segmenting", visible=images.is_dir()) as progress:
        pictures = segment_pictures(bundle, file, given.paths, trust=config.trust, progress=progress)
        written = save_segmented(pictures, bundle.card.class_names, folder, root)
    print(given.signature_line, *written.lines, sep="\n")
    if len(written.shares) > len(written.lines):
        print(f"and {len(written.shares) - len(written.lines)} more pictures")
    for unread, reason in written.unreadable.items():
        print(f"skipped, because it cannot be read as an image: {unread} ({reason})")
    run_text = f"{statistics.median(written.run_ms):.2f} ms a picture in {engine_title(bundle, file)}"
    print(*given.notes, run_text, sep="\n")
    print(f"overlays and masks: {folder}; side by side: {folder / SHEET_FILE}; shares: {SHARES_FILE}")
    return folder


def _output(output: str | None, images: Path) -> Path:
    """Return the folder for the results, which must not lie in that of the pictures.

    Raises:
        UserError: if it does.
    """
    folder = Path(output or f"segmented-{images.resolve().stem}").expanduser()
    if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise UserError(f"output {folder} lies in the folder of the pictures; choose another one.")
    return folder


if __name__ == "__main__":
    segment()
