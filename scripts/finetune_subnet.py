"""Train a bundle's network further, e.g. `finetune_subnet.py run_name=digits bundle=smallest`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar
from ofa.evaluation.evaluate import SubnetEvaluator, top1
from ofa.export.bundle import load_bundle
from ofa.export.card import top1_metric
from ofa.export.write import export_bundle
from ofa.launch import command
from ofa.modules.static import StaticNetwork
from ofa.runs.config import RunConfig
from ofa.runs.trained import open_run
from ofa.space.space import check_fingerprint
from ofa.training.finetune import finetune
from ofa.training.precision import EMULATED, emulates
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
    """Fine-tune, recalibrate, export and return the new bundle's folder."""
    run = open_run(config)
    bundle = load_bundle(run.directory.bundle(config.bundle))
    check_fingerprint(bundle.subnet.space.fingerprint, run.info.space, f"bundle {bundle.path}")
    resolution, network = bundle.subnet.config.resolution, bundle.network.to(run.device)
    assert isinstance(network, StaticNetwork)
    evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=config.calibration_images)
    largest = dataclasses.replace(run.info.space.largest, resolution=resolution)
    teacher = evaluator.network(largest) if config.finetuning.distillation_ratio else None
    if emulates(config.finetuning.precision, run.device):
        print(EMULATED)
    before = top1(network, evaluator.batches(resolution))
    with progress_bar("fine-tuning") as progress:
        finetune(network, run.data, resolution, config.finetuning, teacher, progress)
    evaluator.recalibrate(network, resolution)
    after = top1(network, evaluator.batches(resolution))
    print(f"validation top-1: {100 * before:.2f} % before, {100 * after:.2f} % after")
    provenance = {**bundle.card.provenance, "finetuned": dataclasses.asdict(config.finetuning)}
    card = dataclasses.replace(bundle.card, expected_metric=top1_metric(after), provenance=provenance)
    path = run.directory.bundles / (config.name or f"{bundle.path.name}-finetuned")
    with progress_bar("exporting") as progress:
        export_bundle(network.cpu(), card, path, config.formats, progress=progress)
    print(f"bundle: {path}")
    print(f"next: python scripts/evaluate_subnet.py run_name={config.run_name} bundle={path.name}")
    return path


if __name__ == "__main__":
    finetune_subnet()
