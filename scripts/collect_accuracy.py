"""Evaluate sub-networks on validation images, e.g. `collect_accuracy.py run_name=digits count=300`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class CollectConfig(RunConfig):
    """Settings of `conf/collect_accuracy.yaml`."""

    count: int
    strategy: str
    validation_images: int | None
    calibration_images: int
    seed: int


@command("collect_accuracy", CollectConfig)
def collect_accuracy(config: CollectConfig) -> Path:
    """Evaluate what is missing of the planned sub-networks and return the path of the records."""
    from ofa.common.distributed import launched_world
    from ofa.evaluation.evaluate import SubnetEvaluator
    from ofa.runs.trained import open_run
    from predictors.collection.collect import collect
    from predictors.collection.records import RecordFile

    run = open_run(config)
    evaluator = SubnetEvaluator(
        run.supernet,
        run.data,
        calibration_images=config.calibration_images,
        limit=config.validation_images,
    )
    validation = run.data.size("validation")
    images = min(config.validation_images or validation, validation)
    provenance = {
        "supernet": run.info.sha256,
        "validation": f"{images} images of {run.data.info.name}",
        "calibration": f"{config.calibration_images} images",
    }
    path = run.directory.records
    with launched_world(run.device) as world, run.directory.locked("evaluation", world.is_main):
        records = RecordFile.open(path, run.info.space, provenance, world, metric=evaluator.task.metric)
        with progress_bar("evaluating", visible=world.is_main) as progress:
            space, count, strategy = run.trained_space, config.count, config.strategy
            collect(space, count, config.seed, evaluator.score, records, progress, world, strategy)
        if not world.is_main:
            return path
    metric, lowest, highest = records.header.metric, records.values.min(), records.values.max()
    span = f"{metric.scale * lowest:.2f} to {metric.show(highest)}"
    print(f"{len(records)} sub-networks, validation {metric.title} {span}")
    print(f"records: {path}\nnext: python scripts/fit_predictor.py run_name={config.run_name}")
    return path


if __name__ == "__main__":
    collect_accuracy()
