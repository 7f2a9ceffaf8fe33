"""Evaluate sub-networks on validation images, e.g. `collect_accuracy.py run_name=digits count=300`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.checkpoint import load_supernet
from ofa.data import load_data
from ofa.evaluate import SubnetEvaluator
from ofa.launch import choose_accelerator, command
from ofa.progress import progress_bar
from ofa.run import RunDirectory
from predictors.collect import collect
from predictors.records import RecordFile


@dataclass(frozen=True)
class CollectConfig:
    """Settings of `conf/collect_accuracy.yaml`."""

    run_name: str
    runs_dir: str
    count: int
    validation_images: int | None
    calibration_images: int
    seed: int
    data_root: str | None
    accelerator: str
    threads: int | None


@command("collect_accuracy", CollectConfig)
def collect_accuracy(config: CollectConfig) -> Path:
    """Evaluate what is missing of the planned sub-networks and return the path of the records."""
    device = choose_accelerator(config.accelerator, config.threads)
    run = RunDirectory(config.runs_dir, config.run_name)
    data = load_data(run.load_data_settings(config.data_root))
    supernet, info = load_supernet(run.supernet)
    evaluator = SubnetEvaluator(
        supernet.to(device),
        data,
        calibration_images=config.calibration_images,
        limit=config.validation_images,
    )
    images = min(config.validation_images or data.size("validation"), data.size("validation"))
    provenance = {
        "supernet": info.sha256,
        "validation": f"{images} images of {data.info.name}",
        "calibration": f"{config.calibration_images} images",
    }
    records = RecordFile.open(run.records, info.space, provenance)
    with progress_bar("evaluating") as progress:
        collect(info.space, config.count, config.seed, evaluator.top1, records, progress)
    top1 = 100 * records.top1
    print(f"{len(records)} sub-networks, validation top-1 {top1.min():.2f} to {top1.max():.2f} %")
    print(f"records: {run.records}\nnext: python scripts/fit_predictor.py run_name={config.run_name}")
    return run.records


if __name__ == "__main__":
    collect_accuracy()
