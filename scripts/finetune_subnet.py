"""Train a bundle's network further, e.g. `ofa finetune run_name=digits bundle=smallest`.

An interrupted run is continued by the same command.
Several processes: `torchrun --nproc-per-node=2 -m ofa finetune run_name=...`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar, unnoted
from ofa.launch import command, job_name
from ofa.runs.config import RunConfig, next_command
from ofa.training.settings import FinetuneSettings


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Settings of `conf/finetune_subnet.yaml`."""

    bundle: str
    name: str | None
    finetuning: FinetuneSettings
    formats: tuple[str, ...]
    calibration_images: int


@command("finetune_subnet", FinetuneConfig)
def finetune_subnet(config: FinetuneConfig) -> Path:
    """Fine-tune (or go on with it), recalibrate, export and return the new bundle's folder."""
    from ofa.common.distributed import launched_world
    from ofa.export.bundle import load_bundle
    from ofa.runs.finetune import finetune_bundle
    from ofa.runs.trained import open_run

    run = open_run(config)
    bundle = load_bundle(run.directory.bundle(config.bundle))
    named_settings = ["run_name", "name"] if config.name else ["run_name", "bundle"]
    name = job_name(config.name or f"{bundle.path.name}-finetuned", named_settings)
    with (
        launched_world(run.device) as world,
        progress_bar("fine-tuning", visible=world.is_main) as progress,
    ):
        report = finetune_bundle(
            run,
            bundle,
            name,
            config.finetuning,
            formats=config.formats,
            calibration_images=config.calibration_images,
            world=world,
            progress=progress,
            note=print if world.is_main else unnoted,
        )
    if report is not None:
        show = report.metric.show
        print(f"validation {report.metric.title}: {show(report.before)} before, {show(report.after)} after")
        print(f"bundle: {report.path}")
        print(next_command(config, "evaluate", {"bundle": name}))
    return run.directory.bundles / name


if __name__ == "__main__":
    finetune_subnet()
