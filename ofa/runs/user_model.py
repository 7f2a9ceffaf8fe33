"""The supernet of a user's model for a run: converted when it begins, read from its folder afterwards."""

from __future__ import annotations

from ofa.common.command_line import assignments
from ofa.common.errors import UserError
from ofa.common.progress import Note
from ofa.data.base import ImageData
from ofa.graph.settings import ModelSettings
from ofa.graph.supernet import GraphSupernet
from ofa.runs.config import TrainConfig, has_begun
from ofa.runs.conversion import ConvertedModel, noted_conversion, weights_hash
from ofa.runs.directory import RunDirectory
from ofa.runs.start import StartRecord, check_teacher, recorded_start
from ofa.runs.supernet_file import load_supernet, save_supernet


def model_supernet(
    config: TrainConfig, run: RunDirectory, data: ImageData, note: Note, earlier: ConvertedModel | None = None
) -> tuple[GraphSupernet, StartRecord]:
    """Return the supernet of a run of a user's model, and where its weights came from.

    A run that has begun reads the supernet that it began with; nothing is converted again.

    Args:
        config: configuration of the run; `config.model` names the network.
        run: folder of the run.
        data: images of the run.
        note: called with lines for the user.
        earlier: the network as it was converted before, e.g. for a plan; it is converted again where the run
            needs another one.

    Raises:
        UserError: for a network that cannot be loaded, adapted to the images or converted, and for weights
            that are others by now.
    """
    record = recorded_start(run) if has_begun(run) else None
    if record is not None and run.first_supernet.exists():
        if record.kind == "model":
            _check_weights(config.model, record, run)
        supernet, _ = load_supernet(run.first_supernet)
        assert isinstance(supernet, GraphSupernet)
        return supernet, record
    conversion = noted_conversion(
        config.model, data, config.data, config.training.seed, note=note, earlier=earlier
    )
    report = conversion.report
    record = StartRecord(
        source=str(config.model.name),
        kind="model",
        sha256=weights_hash(config.model),
        text=report.text,
        num_taken=len(report.taken_names),
        adapted_names=_in_supernet(report.adapted_names),
        new_names=_in_supernet(report.new_names),
        has_new_classifier=report.has_new_classifier,
    )
    if config.init is None:
        check_teacher(config.recipe.phases[0], record)
    return conversion.supernet, record


def save_first_supernet(run: RunDirectory, supernet: GraphSupernet) -> None:
    """Keep the supernet that a run begins with, so that it can go on without converting the network again."""
    save_supernet(run.first_supernet, supernet, {})


def _in_supernet(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"model.{name}" for name in names)


def _check_weights(model: ModelSettings, record: StartRecord, run: RunDirectory) -> None:
    """Raise the error for weights that are not those that a run began with; they need not be there."""
    try:
        digest = weights_hash(model)
    except UserError:
        return  # They are not needed any more.
    if digest != record.sha256:
        given = " ".join(assignments({"model.weights": model.weights})) or "no model.weights"
        raise UserError(
            f"{run.path} began with other weights than {given}. Give the same as then, or choose another "
            "run_name."
        )
