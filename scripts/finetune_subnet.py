"""Train a bundle's network further, e.g. `finetune_subnet.py run_name=digits bundle=smallest`.

An interrupted run is continued by the same command.
Several processes: `torchrun --nproc-per-node=2 scripts/finetune_subnet.py run_name=...`.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.space.space import check_fingerprint
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
    from ofa.evaluation.evaluate import SubnetEvaluator, score
    from ofa.export.bundle import load_bundle
    from ofa.export.card import top1_metric
    from ofa.export.write import export_bundle
    from ofa.modules.static import StaticNetwork
    from ofa.runs.trained import open_run
    from ofa.training.fit import fit
    from ofa.training.precision import EMULATED, emulates

    run = open_run(config)
    bundle = load_bundle(run.directory.bundle(config.bundle))
    check_fingerprint(bundle.subnet.space.fingerprint, run.info.space, f"bundle {bundle.path}")
    assert isinstance(bundle.network, StaticNetwork)
    name = config.name or f"{bundle.path.name}-finetuned"
    folder, path = run.directory.finetuning(name), run.directory.bundles / name
    resolution, network = bundle.subnet.config.resolution, bundle.network.to(run.device)
    evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=config.calibration_images)
    largest = dataclasses.replace(run.info.space.largest, resolution=resolution)
    teacher = evaluator.network(largest) if config.finetuning.distillation_ratio else None
    old_score = score(network, evaluator.batches(resolution))
    stage = f"fine-tuning-{name}"
    with launched_world(run.device) as world, run.directory.locked(stage, world.is_main):
        if world.is_main and emulates(config.finetuning.precision, run.device):
            print(EMULATED)
        with progress_bar("fine-tuning", visible=world.is_main) as progress:
            fit(
                network,
                run.data,
                config.finetuning,
                resolution=resolution,
                teacher=teacher,
                folder=folder,
                world=world,
                progress=progress,
            )
        if not world.is_main:
            return path
        evaluator.recalibrate(network, resolution)
        new_score, metric = score(network, evaluator.batches(resolution)), evaluator.task.metric
        print(f"validation {metric.title}: {metric.show(old_score)} before, {metric.show(new_score)} after")
        provenance = {**bundle.card.provenance, "finetuned": dataclasses.asdict(config.finetuning)}
        card = dataclasses.replace(bundle.card, expected_metric=top1_metric(new_score), provenance=provenance)
        with progress_bar("exporting") as progress:
            export_bundle(network.cpu(), card, path, config.formats, progress=progress)
        # The bundle has the weights now; the TensorBoard events stay.
        shutil.rmtree(folder / "checkpoints")
    print(f"bundle: {path}")
    print(f"next: python scripts/evaluate_subnet.py run_name={config.run_name} bundle={path.name}")
    return path


if __name__ == "__main__":
    finetune_subnet()
