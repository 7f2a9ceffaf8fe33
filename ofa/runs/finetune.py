"""`finetune_bundle`: the network of a bundle trained further, as a new bundle."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.metric import Metric
from ofa.common.progress import Note, ProgressCallback, silent, unnoted
from ofa.evaluation.evaluate import SubnetEvaluator, score
from ofa.export.bundle import Bundle
from ofa.export.card import top1_metric
from ofa.export.write import export_bundle
from ofa.modules.static import StaticNetwork
from ofa.runs.trained import TrainedRun
from ofa.space.space import check_fingerprint
from ofa.training.fitting import fit
from ofa.training.precision import EMULATED, emulates
from ofa.training.settings import FinetuneSettings


@dataclass(frozen=True)
class FinetuneReport:
    """The new bundle, and the metric on validation images before and after."""

    path: Path
    metric: Metric
    before: float
    after: float


def finetune_bundle(
    run: TrainedRun,
    bundle: Bundle,
    name: str,
    settings: FinetuneSettings,
    *,
    formats: Sequence[str] = ("onnx", "pt2"),
    calibration_images: int = 2000,
    world: World = SINGLE_PROCESS,
    progress: ProgressCallback = silent,
    note: Note = unnoted,
) -> FinetuneReport | None:
    """Fine-tune the network of a bundle (or go on with it), recalibrate it, and export it.

    Args:
        run: the run that the bundle's network is a sub-network of; the largest one is its teacher.
        bundle: the bundle; not changed.
        name: name of the new bundle.
        settings: settings of the training.
        formats: files of the new bundle beside the weights.
        calibration_images: training images that recalibrate batch norm.
        world: the processes that train together; all but the main one return None.
        progress: called with the steps.
        note: called with lines for the user.

    Raises:
        UserError: if the bundle is of another space, another fine-tuning of this name has begun, or a file
            cannot be written.
        StoppedError: after a signal, with a checkpoint of the last step written.
    """
    check_fingerprint(bundle.subnet.space.fingerprint, run.info.space, f"bundle {bundle.path}")
    assert isinstance(bundle.network, StaticNetwork)
    resolution, network = bundle.subnet.config.resolution, bundle.network.to(run.device)
    evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=calibration_images)
    before = score(network, evaluator.batches(resolution))
    with run.directory.locked(f"fine-tuning-{name}", world.is_main):
        if emulates(settings.precision, run.device):
            note(EMULATED)
        fit(
            network,
            run.data,
            settings,
            resolution=resolution,
            teacher=_teacher(run, evaluator, resolution) if settings.distillation_ratio else None,
            folder=run.directory.finetuning(name),
            world=world,
            progress=progress,
        )
        if not world.is_main:
            return None
        evaluator.recalibrate(network, resolution)
        after = score(network, evaluator.batches(resolution))
        provenance = {**bundle.card.provenance, "finetuned": dataclasses.asdict(settings)}
        card = dataclasses.replace(bundle.card, expected_metric=top1_metric(after), provenance=provenance)
        report = export_bundle(network.cpu(), card, run.directory.bundles / name, formats)
        # The bundle has the weights now; the TensorBoard events stay.
        shutil.rmtree(run.directory.finetuning(name) / "checkpoints")
    return FinetuneReport(report.path, evaluator.task.metric, before, after)


def _teacher(run: TrainedRun, evaluator: SubnetEvaluator[StaticNetwork], resolution: int) -> StaticNetwork:
    """Return the largest network of the run at a resolution."""
    return evaluator.network(dataclasses.replace(run.info.space.largest, resolution=resolution))
