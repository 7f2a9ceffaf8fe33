"""Tell the labels or numbers of pictures with a bundle, e.g. `ofa predict bundle=largest images=DIR`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from classify import ClassifyConfig, open_pictures, picture_paths

from ofa.common.disk import check_writable
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
from ofa.launch import command

MAX_NAMES = 8


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ClassifyConfig):
    """Settings of `conf/predict.yaml`."""


@command("predict", PredictConfig)
def predict(config: PredictConfig) -> Path:
    """Write a row for each picture as CSV, print the first ones, and return the file."""
    from ofa.common.metric import number_text
    from ofa.data.settings import REGRESSION
    from ofa.export.engines import engine_title
    from ofa.export.predict import check_prediction, predict_pictures, save_predictions

    images, root = picture_paths(config)
    output = _output(config.output, images)
    check_writable(output.absolute().parent)
    given = open_pictures(config, images, check_prediction)
    bundle, file, names = given.bundle, given.file_key, given.bundle.card.class_names
    with progress_bar("predicting", visible=images.is_dir()) as progress:
        predictions = predict_pictures(bundle, file, given.paths, trust=config.trust, progress=progress)
        summary = save_predictions(predictions, names, output, root)
    print(given.signature_line)
    for prediction in summary.first:
        values = zip(names[:MAX_NAMES], prediction.values, strict=False)
        is_number = bundle.card.task == REGRESSION
        texts = [f"{name} {number_text(v) if is_number else f'{100 * v:.1f} %'}" for name, v in values]
        more = [f"and {len(names) - MAX_NAMES} more"] * (len(names) > MAX_NAMES)
        print(f"{prediction.path.relative_to(root)}: {', '.join([*texts, *more])}")
    if summary.num_pictures > len(summary.first):
        print(f"and {summary.num_pictures - len(summary.first)} more pictures")
    for unread, reason in summary.unreadable.items():
        print(f"skipped, because it cannot be read as an image: {unread} ({reason})")
    if summary.num_unreadable > len(summary.unreadable):
        print(f"and {summary.num_unreadable - len(summary.unreadable)} more that cannot be read")
    print(*given.notes, f"{summary.run_ms:.2f} ms a picture in {engine_title(bundle, file)}", sep="\n")
    print(f"a row for each of {summary.num_pictures} pictures: {output}")
    return output


def _output(output: str | None, images: Path) -> Path:
    """Return the CSV file for the results, which must not lie in the folder of the pictures.

    Raises:
        UserError: if it does, or is called otherwise.
    """
    path = Path(output or f"predicted-{images.resolve().stem}.csv").expanduser()
    if path.suffix != ".csv":
        raise UserError(f"output is {output!r}; expected a file that ends in .csv.")
    if images.is_dir() and path.resolve().is_relative_to(images.resolve()):
        raise UserError(f"output {path} lies in the folder of the pictures; choose another place.")
    return path


if __name__ == "__main__":
    predict()
