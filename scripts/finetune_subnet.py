"""Train a bundle's network further, e.g. `finetune_subnet.py run_name=digits bundle=smallest`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ofa.checkpoint import load_supernet
from ofa.data import load_data
from ofa.evaluate import SubnetEvaluator, top1
from ofa.export import export_bundle, load_bundle
from ofa.launch import choose_accelerator, command
from ofa.progress import progress_bar
from ofa.run import RunDirectory
from ofa.training.finetune import finetune
from ofa.training.settings import FinetuneSettings


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of `conf/finetune_subnet.yaml`."""

    run_name: str
    runs_dir: str
    bundle: str
    name: str | None
    finetuning: FinetuneSettings
    formats: tuple[str, ...]
    calibration_images: int
    data_root: str | None
    accelerator: str
    threads: int | None


@command("finetune_subnet", FinetuneConfig)
def finetune_subnet(config: FinetuneConfig) -> Path:
    """Fine-tune, recalibrate, export and return the new bundle's folder."""
    device = choose_accelerator(config.accelerator, config.threads)
    run = RunDirectory(config.runs_dir, config.run_name)
    path = run.bundles / config.bundle
    bundle = load_bundle(path if path.is_dir() else Path(config.bundle))
    data = load_data(run.load_data_settings(config.data_root))
    supernet, made = load_supernet(run.supernet, bundle.info.space)
    resolution, network = bundle.info.config.resolution, bundle.network.to(device)
    evaluator = SubnetEvaluator(supernet.to(device), data, calibration_images=config.calibration_images)
    teacher_config = dataclasses.replace(made.space.largest, resolution=resolution)
    teacher = evaluator.network(teacher_config) if config.finetuning.distillation_ratio else None
    before = top1(network, evaluator.batches(resolution))
    with progress_bar("fine-tuning") as progress:
        finetune(network, data, resolution, config.finetuning, teacher, progress)
    evaluator.recalibrate(network, resolution)
    after = top1(network, evaluator.batches(resolution))
    print(f"validation top-1: {100 * before:.2f} % before, {100 * after:.2f} % after")
    provenance = {**bundle.info.provenance, "finetuned": dataclasses.asdict(config.finetuning)}
    info = dataclasses.replace(bundle.info, expected_top1=after, provenance=provenance)
    new = run.bundles / (config.name or f"{bundle.path.name}-finetuned")
    with progress_bar("exporting") as progress:
        export_bundle(network.cpu(), info, new, config.formats, progress=progress)
    print(
        f"bundle: {new}\nnext: python scripts/evaluate_subnet.py run_name={config.run_name} bundle={new.name}"
    )
    return new


if __name__ == "__main__":
    finetune_subnet()
