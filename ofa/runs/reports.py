"""Where the reports on a bundle are: in the folder of its run, or in the working folder."""

from __future__ import annotations

from pathlib import Path

REPORTS_FOLDER = "reports"


def report_path(bundle_path: Path, file: str, data: str, split: str) -> Path:
    """Return the path of the JSON file that tells how one of a bundle's files classifies a split.

    It is in the folder `reports` of the bundle's run, or in the working folder for a bundle of no run.

    Args:
        bundle_path: folder of the bundle.
        file: key in its files, e.g. "weights".
        data: name of the image set.
        split: split of the images.
    """
    path = bundle_path if bundle_path.parent.parent.name else bundle_path.resolve()
    run = path.parent.parent
    is_of_run = path.parent.name == "bundles" and (run / "config.json").is_file()
    folder = run / REPORTS_FOLDER if is_of_run else Path()
    return folder / f"{path.name}-{file}-{data}-{split}.json"
