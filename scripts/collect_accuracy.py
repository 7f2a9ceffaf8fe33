"""Evaluate sub-networks on validation images, e.g. `ofa collect run_name=digits count=300`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar, unnoted
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command


@dataclass(frozen=True, kw_only=True)
class CollectConfig(RunConfig):
    """Settings of `conf/collect_accuracy.yaml`."""

    count: int
    strategy: str
    validation_images: int | None
    calibration_images: int
    seed: int


@command(
    "collect_accuracy",
    CollectConfig,
    interrupted="The networks evaluated so far are kept; the same command goes on with the others.",
)
def collect_accuracy(config: CollectConfig) -> Path:
    """Evaluate what is missing of the planned sub-networks and return the path of the records."""
    from ofa.common.distributed import launched_world
    from ofa.runs.trained import open_run
    from predictors import collect

    run = open_run(config)
    path = run.directory.records
    with (
        launched_world(run.device) as world,
        run.directory.locked("evaluation", world.is_main),
        progress_bar("evaluating", visible=world.is_main) as progress,
    ):
        records = collect(
            run.supernet,
            run.data,
            count=config.count,
            file=path,
            space=run.trained_space,
            strategy=config.strategy,
            seed=config.seed,
            calibration_images=config.calibration_images,
            validation_images=config.validation_images,
            provenance={"supernet": run.info.sha256},
            progress=progress,
            note=print if world.is_main else unnoted,
            world=world,
        )
    if world.is_main:
        print(f"{records.summary}\nrecords: {path}\n{next_command(config, 'fit')}")
    return path


if __name__ == "__main__":
    collect_accuracy()
