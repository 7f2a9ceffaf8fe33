"""`classify_pictures`: what one of a bundle's files says about pictures, and how long it takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.pictures import UnreadableError
from ofa.data.settings import CLASSIFICATION
from ofa.evaluation.confusion import Confusion, confusion_of
from ofa.export.bundle import Bundle
from ofa.export.engines import engine_title
from ofa.export.fresh_run import load_file
from ofa.runtimes.base import Logits

NUM_ANSWERS = 3
WARMUP_RUNS = 5
MIN_RUNS = 20
"""A few pictures are run several times each, so that there are at least so many runs to time."""


@dataclass(frozen=True)
class Answer:
    """What a network says about one picture.

    Attributes:
        path: file of the picture.
        classes: the most probable classes with their probabilities (0..1), the best first.
        run_ms: milliseconds of a run of the network, without reading the picture.
        label: true class; None if it is not known.
    """

    path: Path
    classes: tuple[tuple[str, float], ...]
    run_ms: float
    label: str | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the best class is known not to be the true one."""
        return self.label is not None and self.label != self.classes[0][0]


@dataclass(frozen=True)
class Classification:
    """What a network says about pictures.

    Attributes:
        network: name of the network.
        file: the bundle's file that was run, e.g. "onnx".
        engine: what ran it, e.g. "ONNX Runtime".
        num_threads: threads of the processor.
        class_names: names of all classes.
        answers: one for each picture that can be read.
        unreadable: reasons by file of those that cannot.
        reading_ms: median of the milliseconds that reading and scaling a picture takes.
    """

    network: str
    file: str
    engine: str
    num_threads: int
    class_names: tuple[str, ...]
    answers: tuple[Answer, ...]
    unreadable: Mapping[Path, str]
    reading_ms: float

    @property
    def run_ms(self) -> float:
        """Median of the milliseconds that a run takes."""
        return statistics.median(answer.run_ms for answer in self.answers)

    @cached_property
    def confusion(self) -> Confusion | None:
        """The answers on pictures whose true class is known; None if there are none."""
        pairs = [(answer.label, answer.classes[0][0]) for answer in self.answers if answer.label is not None]
        if not pairs:
            return None
        labels, answers = zip(*pairs, strict=True)
        position = self.class_names.index
        return confusion_of(self.class_names, map(position, labels), map(position, answers))


def check_classification(bundle: Bundle) -> None:
    """Raise the error for a bundle whose network does not classify.

    Raises:
        UserError: naming its task.
    """
    card = bundle.card
    if card.task != CLASSIFICATION:
        raise UserError(
            f"{card.name} is a network for {card.task}; pictures are classified by one for {CLASSIFICATION}. "
            "Run its files as the README in the bundle shows; ofa segment draws the classes of pixels, ofa "
            "predict tells labels and numbers."
        )


@torch.inference_mode()
def classify_pictures(
    bundle: Bundle,
    file: str,
    paths: Sequence[Path],
    labels: Sequence[str | None] | None = None,
    *,
    trust: bool = False,
    progress: ProgressCallback = silent,
) -> Classification:
    """Classify pictures one at a time, as a program on a device does.

    Args:
        bundle: bundle of a classification network.
        file: key in `bundle.files`, run by its engine on the processor.
        paths: files of the pictures, at least one.
        labels: true class of each picture, None where it is unknown; None if all are.
        trust: load files that can run code although they were not exported here; see `ofa.export.trust`.
        progress: called after every picture.

    Raises:
        UserError: if the network does not classify or takes no pictures, no picture can be read, its engine
            is not installed, or its outputs are not finite.
    """
    check_classification(bundle)
    logits_of = load_file(bundle, file, trust=trust)
    labels = labels or [None] * len(paths)
    answers: list[Answer] = []
    unreadable: dict[Path, str] = {}
    reading_ms: list[float] = []
    num_runs = math.ceil(MIN_RUNS / len(paths))
    for position, (path, label) in enumerate(zip(paths, labels, strict=True)):
        progress(position, len(paths), "")
        start = time.perf_counter()
        try:
            images = bundle.card.read_image(path)
        except UnreadableError as error:
            unreadable[path] = error.reason
            continue
        reading_ms.append((time.perf_counter() - start) * 1e3)
        if not answers:
            timed_runs(logits_of, images, WARMUP_RUNS)
        logits, run_ms = timed_runs(logits_of, images, num_runs)
        answers.append(Answer(path, _best_classes(bundle, logits), run_ms, label))
    progress(len(paths), len(paths), "")
    if not answers:
        raise UserError(unreadable_text(unreadable))
    title, num_threads = engine_title(bundle, file), torch.get_num_threads()
    return Classification(
        bundle.card.name,
        file,
        title,
        num_threads,
        bundle.card.class_names,
        tuple(answers),
        unreadable,
        statistics.median(reading_ms),
    )


def timed_runs(logits_of: Logits, images: Tensor, num_runs: int) -> tuple[Tensor, float]:
    """Return what a network makes of images, and the median milliseconds of the runs."""
    runs_ms = []
    for _ in range(num_runs):
        start = time.perf_counter()
        logits = logits_of(images)
        runs_ms.append((time.perf_counter() - start) * 1e3)
    return logits, statistics.median(runs_ms)


def check_finite(bundle: Bundle, outputs: Tensor) -> None:
    """Raise the error for outputs of a bundle's network that are not finite.

    Raises:
        UserError: naming the bundle.
    """
    if not torch.isfinite(outputs).all():
        raise UserError(
            f"The outputs of {bundle.card.name} in {bundle.path} are not finite; its weights are damaged."
        )


def _best_classes(bundle: Bundle, logits: Tensor) -> tuple[tuple[str, float], ...]:
    """Return the most probable classes and their probabilities."""
    check_finite(bundle, logits)
    names = bundle.card.class_names
    shares, positions = logits[0].float().softmax(0).topk(min(NUM_ANSWERS, len(names)))
    return tuple((names[position], share) for position, share in zip(positions, shares.tolist(), strict=True))


def unreadable_text(unreadable: Mapping[Path, str]) -> str:
    """Return the text of the error if no picture can be read; the reasons are given by file."""
    if len(unreadable) == 1:
        ((path, reason),) = unreadable.items()
        return f"{path} cannot be read as an image ({reason})."
    lines = [f"  {path} ({reason})" for path, reason in list(unreadable.items())[:10]]
    more = [f"  and {len(unreadable) - 10} more"] if len(unreadable) > 10 else []
    return "\n".join([f"None of {len(unreadable)} pictures can be read as an image:", *lines, *more])
