"""Draw the classes of the pixels of pictures with a bundle, e.g. `ofa segment bundle=largest images=DIR`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from classify import ClassifyConfig, bundle_path, picture_paths

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
    from ofa.common.accelerator import choose_accelerator
    from ofa.data.listing import Listing, left_out_note, list_folder
    from ofa.export.bundle import load_bundle
    from ofa.export.engines import engine_title, runnable_file
    from ofa.export.segment import check_segmentation, segment_pictures
    from ofa.export.segmented import SHARES_FILE, SHEET_FILE, save_segmented
    from ofa.export.signature import check_signature

    choose_accelerator("cpu", config.threads)
    images, root = picture_paths(config)
    folder = _output(config.output, images)
    check_writable(folder.absolute().parent)
    path = bundle_path(config)
    signature = check_signature(path, config.verify_key)
    bundle = load_bundle(path)
    check_segmentation(bundle)
    names, file = bundle.card.class_names, config.format or runnable_file(bundle, trust=config.trust)
    listing = list_folder(images) if images.is_dir() else Listing([images])
    with progress_bar("segmenting", visible=images.is_dir()) as progress:
        pictures = segment_pictures(bundle, file, listing.paths, trust=config.trust, progress=progress)
        written = save_segmented(pictures, names, folder, root)
    print(f"signature of {path}: {signature}", *written.lines, sep="\n")
    if len(written.shares) > len(written.lines):
        print(f"and {len(written.shares) - len(written.lines)} more pictures")
    for unread, reason in written.unreadable.items():
        print(f"skipped, because it cannot be read as an image: {unread} ({reason})")
    if listing.left_out:
        print(left_out_note(listing.left_out))
    print(f"{statistics.median(written.run_ms):.2f} ms a picture in {engine_title(bundle, file)}")
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
