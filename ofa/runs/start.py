"""`start_from`: a supernet takes the weights of a run, a bundle or a file before it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.common.command_line import DEFAULT_RUNS_DIR
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.progress import Note
from ofa.common.reading import read_json
from ofa.data.settings import DataInfo
from ofa.graph.supernet import GraphSupernet
from ofa.graph.transfer import take_state
from ofa.published.fitting import fitting_text
from ofa.runs.config import TrainConfig, has_begun
from ofa.runs.directory import RunDirectory
from ofa.runs.retarget import tell_same_classes
from ofa.runs.sources import SourceWeights, find_source, read_model_source, read_source
from ofa.runs.supernet_file import AnySupernet
from ofa.supernet.transfer import TransferReport, transfer_weights
from ofa.training.phases import Phase


@dataclass(frozen=True)
class StartRecord:
    """Where the first weights of a supernet came from.

    Attributes:
        source: the source as it was given.
        kind: "run", "bundle" or "file"; or "model" for a user's network with its own weights.
        sha256: hash of its file of weights.
        text: what was taken, for users.
        num_taken: number of tensors taken bit for bit.
        adapted_names: names of the tensors that were summed or spread over other channels of the images.
        new_names: names of the tensors that have initial values.
        has_new_classifier: whether the classifier has initial values.
    """

    source: str
    kind: str
    sha256: str
    text: str
    num_taken: int
    adapted_names: tuple[str, ...]
    new_names: tuple[str, ...]
    has_new_classifier: bool

    @property
    def is_one_network(self) -> bool:
        """Whether the weights were trained for the largest network alone."""
        return self.kind in ("bundle", "model")


def start_from(
    supernet: AnySupernet,
    source: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    runs_dir: str = DEFAULT_RUNS_DIR,
) -> StartRecord:
    """Copy weights and batch-norm statistics of `source` into a new supernet, and return what was taken.

    Everything is taken bit for bit but the classifier where the classes differ, and the first convolution
    where the channels of the images differ: the weights of all channels are summed for one channel, that of
    one channel is spread in equal parts over several; for other numbers it is new.

    Args:
        supernet: supernet whose space may differ from that of the source in classes, channels, name and
            resolutions.
        source: name of a finished run of `runs_dir`; the folder of a run, or of a bundle of the largest
            network of the space; a file of a published supernet; or a state dict of the space, also inside a
            checkpoint.
        class_names: classes that the supernet is to tell; a classifier is taken only from a source of the
            same ones, as far as its classes are known. None takes it where their number is equal.
        runs_dir: folder of all runs.

    Raises:
        UserError: if there is no such source, or it does not fit; everything that does not is named.
    """
    place = find_source(source, runs_dir)
    weights = (
        read_model_source(place) if isinstance(supernet, GraphSupernet) else read_source(place, supernet)
    )
    is_classifier_kept = (
        class_names is None
        or weights.class_names is None
        or tell_same_classes(class_names, weights.class_names)
    )
    report = _transferred(supernet, weights, f"The file {place.path}", is_classifier_kept)
    return StartRecord(
        place.name,
        place.kind,
        place.sha256,
        report.text,
        len(report.taken_names),
        report.adapted_names,
        report.new_names,
        report.has_new_classifier,
    )


def _transferred(
    supernet: AnySupernet, weights: SourceWeights, what: str, is_classifier_kept: bool
) -> TransferReport:
    """Copy the weights of a source into a supernet, and return what was taken."""
    if isinstance(supernet, GraphSupernet):
        return take_state(supernet, weights.state, what=what, is_classifier_kept=is_classifier_kept)
    try:
        return transfer_weights(
            supernet,
            weights.state,
            what=what,
            is_classifier_kept=is_classifier_kept,
            names=weights.names,
        )
    except UserError as error:
        hint = "" if weights.original is None else f"\n{fitting_text(weights.original)}"
        raise UserError(f"{error}{hint}") from error


def start_run(
    config: TrainConfig, directory: RunDirectory, supernet: AnySupernet, info: DataInfo, note: Note
) -> StartRecord | None:
    """Let the supernet of a run start from `config.init`; return the record of that, None without a source.

    A run that has begun goes on from its checkpoints; only the source is compared with the recorded one.

    Raises:
        UserError: as `start_from`; if the source of a run that has begun is another file by now; or for a
            first phase with a frozen teacher whose classifier is new.
    """
    if config.init is None:
        return None
    recorded = recorded_start(directory) if has_begun(directory) else None
    if recorded is None:
        record = start_from(supernet, config.init, class_names=info.class_names, runs_dir=config.runs_dir)
        check_teacher(config.recipe.phases[0], record)
        note(f"weights of {record.source}: {record.text}")
        return record
    try:
        digest = find_source(config.init, config.runs_dir).sha256
    except UserError:
        return recorded  # It is not needed any more.
    if digest != recorded.sha256:
        raise UserError(
            f"{config.init} is not the file that {directory.path} started from (its SHA-256 was "
            f"{recorded.sha256} and is {digest}). Bring the old file back, or choose another run_name."
        )
    return recorded


def recorded_start(directory: RunDirectory) -> StartRecord | None:
    """Return where the weights of a run came from, as its folder says; None if it does not."""
    if not directory.config.exists():
        return None
    values: dict[str, Any] | None = read_json(directory.config, "run configuration", "train").get("start")
    return None if values is None else build(StartRecord, values, str(directory.config))


def start_values(start: StartRecord | None) -> dict[str, Any]:
    """Return the entry of a run's files that tells where its weights came from; none without a source."""
    return {} if start is None else {"start": dataclasses.asdict(start)}


def check_teacher(first_phase: Phase, start: StartRecord) -> None:
    """Raise the error for a first phase that distils from a classifier that is new."""
    if start.has_new_classifier and first_phase.teacher == "frozen":
        raise UserError(
            f"The first phase, {first_phase.name!r}, has a frozen teacher, which knows nothing yet: the "
            f"classifier is new ({start.text}). Choose phases that train it first, such as transfer, or set "
            "the teacher to null, or to in_place with a sandwich."
        )
