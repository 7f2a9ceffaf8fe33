"""Classify pictures with a bundle, e.g. `ofa classify bundle=largest images=photo.jpg`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.command_line import DEFAULT_RUNS_DIR
from ofa.common.disk import check_writable
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar, table_console
from ofa.common.text_settings import Name, PathText
from ofa.launch import command
from ofa.runs.directory import RunDirectory, newest_run

if TYPE_CHECKING:
    from ofa.export.bundle import Bundle
    from ofa.export.classify import Classification


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Settings of `conf/classify.yaml`."""

    bundle: PathText
    images: PathText
    format: str | None
    verify_key: PathText | None
    trust: bool
    output: PathText | None
    run_name: Name | None = None
    runs_dir: PathText = DEFAULT_RUNS_DIR
    threads: int | None = None


@command("classify", ClassifyConfig)
def classify(config: ClassifyConfig) -> Classification:
    """Print the classes of the pictures, write the contact sheet of a folder, and return the answers."""
    from ofa.data.listing import class_of
    from ofa.export.classified import answers_table, result_lines, save_results, sheet_path
    from ofa.export.classify import check_classification, classify_pictures
    from search.reports.confusion import confusion_lines

    images, root = picture_paths(config)
    output = sheet_path(config.output, images)
    if output is not None:
        check_writable(output.absolute().parent)
    given = open_pictures(config, images, check_classification)
    labels = [class_of(path, root, given.bundle.card.class_names) for path in given.paths]
    with progress_bar("classifying", visible=images.is_dir()) as progress:
        result = classify_pictures(
            given.bundle, given.file_key, given.paths, labels, trust=config.trust, progress=progress
        )
    table_console().print(answers_table(result, root))
    details = [] if result.confusion is None else confusion_lines(result.confusion)
    print(given.signature_line, *given.notes, *result_lines(result, root), *details, sep="\n")
    if output is not None:
        print(save_results(result, output, root))
    return result


@dataclass(frozen=True)
class OpenedPictures:
    """A bundle, the file of it that runs, and the pictures for it.

    Attributes:
        bundle: the bundle.
        file_key: key in `bundle.files`.
        paths: files of the pictures.
        signature_line: whether the bundle is signed, for the user.
        notes: what of the folder is left out, for the user.
    """

    bundle: Bundle
    file_key: str
    paths: Sequence[Path]
    signature_line: str
    notes: tuple[str, ...]


def open_pictures(config: ClassifyConfig, images: Path, check: Callable[[Bundle], None]) -> OpenedPictures:
    """Load the bundle of a command and list the pictures for it.

    Args:
        config: settings of the command.
        images: the picture or folder.
        check: raises the error for a bundle whose network has another task.

    Raises:
        UserError: if the bundle cannot be read, its signature is wrong or its task another one, or the folder
            has no pictures.
    """
    from ofa.common.accelerator import choose_accelerator
    from ofa.data.listing import Listing, left_out_note, list_folder
    from ofa.export.bundle import load_bundle
    from ofa.export.engines import runnable_file
    from ofa.export.signature import check_signature

    choose_accelerator("cpu", config.threads)
    path = bundle_path(config)
    signature = check_signature(path, config.verify_key)
    bundle = load_bundle(path)
    check(bundle)
    file = config.format or runnable_file(bundle, trust=config.trust)
    listing = list_folder(images) if images.is_dir() else Listing([images])
    notes = (left_out_note(listing.left_out),) if listing.left_out else ()
    return OpenedPictures(bundle, file, listing.paths, f"signature of {path}: {signature}", notes)


def picture_paths(config: ClassifyConfig) -> tuple[Path, Path]:
    """Return the picture or folder of a command, and the folder that the names of its pictures begin from.

    Raises:
        UserError: if it does not exist.
    """
    images = Path(config.images)
    if not images.exists():
        raise UserError(f"images is {config.images!r}: no such file or folder.")
    return images, images if images.is_dir() else images.parent


def bundle_path(config: ClassifyConfig) -> Path:
    """Return the folder of the bundle: a path, or its name in the run, without a name in the newest one."""
    if config.run_name is None and (path := Path(config.bundle)).is_dir():
        return path
    return RunDirectory(config.runs_dir, config.run_name or newest_run(config.runs_dir)).bundle(config.bundle)


if __name__ == "__main__":
    classify()
