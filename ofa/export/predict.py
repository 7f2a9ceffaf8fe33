"""`predict_pictures`: labels or numbers of pictures by a file of a bundle, and the CSV file of them."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ofa.common.errors import UserError
from ofa.common.files import write_atomic
from ofa.common.locks import sole_writer
from ofa.common.progress import ProgressCallback, silent
from ofa.data.pictures import UnreadableError
from ofa.data.settings import OUTPUTS_BY_NAME
from ofa.data.table import FILE
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.tasks import TASKS
from ofa.export.bundle import Bundle
from ofa.export.classify import check_finite, timed_runs, unreadable_text
from ofa.export.fresh_run import load_file

MAX_SHOWN = 40
"""Pictures and reasons that are kept for the screen; the file has all."""

MAX_TIMES = 1000


@dataclass(frozen=True)
class Prediction:
    """What a network says about one picture.

    Attributes:
        path: file of the picture.
        values: probability (0..1) of each label or class, or the number of each column in the user's units;
            empty for a picture that cannot be read.
        run_ms: milliseconds of a run of the network, without reading the picture.
        reason: why the picture cannot be read; empty if it can.
    """

    path: Path
    values: tuple[float, ...]
    run_ms: float = 0.0
    reason: str = ""


@dataclass
class PredictionSummary:
    """What is said about a file of predictions, of any number of pictures.

    Attributes:
        num_pictures: pictures in the file.
        num_unreadable: pictures that cannot be read.
        first: the first predictions, at most `MAX_SHOWN`.
        unreadable: reasons by file of the first pictures that cannot be read, at most `MAX_SHOWN`.
    """

    num_pictures: int = 0
    num_unreadable: int = 0
    first: list[Prediction] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    _times_ms: list[float] = field(default_factory=list)

    @property
    def run_ms(self) -> float:
        """Median of the milliseconds that the first `MAX_TIMES` runs take."""
        return statistics.median(self._times_ms)

    def add(self, prediction: Prediction) -> None:
        """Count a prediction."""
        if prediction.reason:
            self.num_unreadable += 1
            if len(self.unreadable) < MAX_SHOWN:
                self.unreadable[prediction.path] = prediction.reason
            return
        self.num_pictures += 1
        if len(self.first) < MAX_SHOWN:
            self.first.append(prediction)
        if len(self._times_ms) < MAX_TIMES:
            self._times_ms.append(prediction.run_ms)


def check_prediction(bundle: Bundle) -> None:
    """Raise the error for a bundle whose network does not tell something of each of its names.

    Raises:
        UserError: naming its task.
    """
    card = bundle.card
    if card.task not in OUTPUTS_BY_NAME:
        raise UserError(
            f"{card.name} is a network for {card.task}; expected one for {', '.join(OUTPUTS_BY_NAME)}. The "
            "classes of pixels are drawn by: ofa segment."
        )


def predict_pictures(
    bundle: Bundle,
    file: str,
    paths: Sequence[Path],
    *,
    trust: bool = False,
    progress: ProgressCallback = silent,
) -> Iterator[Prediction]:
    """Return what a network says about each picture, one after the other.

    Args:
        bundle: bundle of a network for labels, numbers or classes.
        file: key in `bundle.files`, run by its engine on the processor.
        paths: files of the pictures, at least one.
        trust: load files that can run code although they were not exported here; see `ofa.export.trust`.
        progress: called before every picture.

    Raises:
        UserError: if the network is for another task or its engine is not installed; while iterating, if its
            outputs are not finite.
    """
    check_prediction(bundle)
    card, outputs_of = bundle.card, load_file(bundle, file, trust=trust)
    settings = LossSettings(label_smoothing=0.0, distillation_ratio=0.0)
    task = TASKS[card.task](settings).in_units(card.target_scale)

    def predictions() -> Iterator[Prediction]:
        for position, path in enumerate(paths):
            progress(position, len(paths), "")
            try:
                images = card.read_image(path)
            except UnreadableError as error:
                yield Prediction(path, (), reason=error.reason)
                continue
            with torch.inference_mode():
                outputs, run_ms = timed_runs(outputs_of, images, 1)
                values = task.read(outputs)[0]
            check_finite(bundle, values)
            yield Prediction(path, tuple(values.tolist()), run_ms)
        progress(len(paths), len(paths), "")

    return predictions()


def save_predictions(
    predictions: Iterator[Prediction], names: Sequence[str], path: Path, root: Path
) -> PredictionSummary:
    """Write a row for each picture that can be read as it comes, and return what is said about them.

    The columns are `file`, the path from `root` on, and one for each name. The file appears when it is whole.

    Args:
        predictions: what a network says; see `predict_pictures`.
        names: names of the labels, columns or classes.
        path: the CSV file.
        root: folder that the names of the pictures begin from.

    Raises:
        UserError: if no picture can be read, or the file cannot be written; as `predictions`.
    """
    summary = PredictionSummary()

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([FILE, *names])
            for prediction in predictions:
                summary.add(prediction)
                if not prediction.reason:
                    name = prediction.path.relative_to(root).as_posix()
                    writer.writerow([name, *(f"{value:.7g}" for value in prediction.values)])
        if not summary.num_pictures:
            raise UserError(unreadable_text(summary.unreadable))

    with sole_writer(path, "file of predictions", setting="output"):
        write_atomic(path, write)
    return summary
