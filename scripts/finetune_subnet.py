"""Train a bundle's network further, e.g. `ofa finetune run_name=digits bundle=smallest`.

On other images, without a run: `ofa finetune bundle=FOLDER data=image_folder data.root=DIR run_name=mine`.
An interrupted run is continued by the same command.
Several processes: `ofa --processes 2 finetune run_name=...`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.errors import UserError
from ofa.common.progress import progress_bar, unnoted
from ofa.common.text_settings import Name, PathText
from ofa.data.settings import DataSettings
from ofa.launch import command, job_name
from ofa.runs.config import RunConfig, next_command
from ofa.training.settings import FinetuneSettings

if TYPE_CHECKING:
    from ofa.runs.trained import TrainedRun


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Settings of `conf/finetune_subnet.yaml`."""

    bundle: PathText
    data: DataSettings | None
    task: str | None
    name: Name | None
    finetuning: FinetuneSettings
    formats: tuple[str, ...]
    sign_key: PathText | None
    calibration_images: int

    def __post_init__(self) -> None:
        """Check that something is trained."""
        if self.finetuning.length < 1:
            length = f"finetuning.{self.finetuning.unit} is {self.finetuning.length}"
            raise UserError(f"{length}; expected at least 1.")


@command(
    "finetune_subnet",
    FinetuneConfig,
    interrupted="The last checkpoint, if there is one, is intact; the same command goes on from it.",
)
def finetune_subnet(config: FinetuneConfig) -> Path:
    """Fine-tune (or go on with it), recalibrate, export and return the new bundle's folder."""
    from ofa.common.distributed import launched_world
    from ofa.export.bundle import load_bundle
    from ofa.export.signature import sign_lines, signer_of
    from ofa.runs.config import claim_images
    from ofa.runs.finetune import finetune_bundle, finetune_on
    from ofa.runs.own_code import with_task
    from ofa.runs.trained import open_images

    signer = signer_of(config.sign_key)
    data = with_task(config.data, config.task)
    run = _trained_run(config) if data is None else None
    place = open_images(config, data) if run is None else run
    bundle = load_bundle(place.directory.bundle(config.bundle))
    named_settings = ["run_name", "name"] if config.name else ["run_name", "bundle"]
    name = job_name(config.name or f"{bundle.path.name}-finetuned", named_settings)
    with (
        launched_world(place.device) as world,
        progress_bar("fine-tuning", visible=world.is_main) as progress,
    ):
        if data is not None and world.is_main:
            claim_images(place.directory, data)
        finetune = (
            partial(finetune_on, place.data, bundle, place.directory, device=place.device)
            if run is None
            else partial(finetune_bundle, run, bundle)
        )
        report = finetune(
            name=name,
            settings=config.finetuning,
            formats=config.formats,
            calibration_images=config.calibration_images,
            world=world,
            progress=progress,
            note=print if world.is_main else unnoted,
        )
    if report is not None:
        print(*report.lines, *sign_lines(report.path, signer), sep="\n")
        print(f"bundle: {report.path}")
        print(next_command(config, "evaluate", {"bundle": name}))
    return place.directory.bundles / name


def _trained_run(config: FinetuneConfig) -> TrainedRun:
    """Return the run that the bundle belongs to; an error says that images would do as well."""
    from ofa.runs.trained import open_run

    try:
        return open_run(config, config.task)
    except UserError as error:
        if config.directory.supernet.exists():
            raise
        raise UserError(
            f"{error} Name the run that the bundle belongs to; or give images to fine-tune it on, which "
            "needs no run: data=image_folder data.root=DIR.",
            stage=error.stage,
        ) from error


if __name__ == "__main__":
    finetune_subnet()
