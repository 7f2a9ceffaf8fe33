"""How supernets of user's models are trained and get their predictor in comparisons."""

from __future__ import annotations

import shutil
from typing import Any

from trained_originals import BATCH_SIZE, CALIBRATION_IMAGES, VALIDATION_IMAGES

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.graph.supernet import GraphSupernet
from ofa.space.estimator import Estimator
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer
from predictors.collection.collect import collect
from predictors.fitting import fit


def train_all(supernet: GraphSupernet, data: ImageData, seed: int, options: Any) -> None:
    """Train all sub-networks together for `options.supernet_steps`, the largest as it is as the teacher."""
    phase = Phase(
        steps=options.supernet_steps,
        lr=options.lr,
        warmup_steps=10,
        subnets_per_step=options.subnets,
        sandwich=options.sandwich,
        teacher="frozen",
        sort_channels=True,
    )
    settings = TrainSettings(
        batch_size=BATCH_SIZE,
        seed=seed,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.0,
        dropout=0.0,
        soft_loss=options.soft_loss,
        validation_images=VALIDATION_IMAGES,
        calibration_images=CALIBRATION_IMAGES,
        validate_every_steps=options.supernet_steps,
    )
    folder = options.folder / f"work-{options.job}"
    shutil.rmtree(folder, ignore_errors=True)
    with progress_bar("supernet") as progress:
        Trainer(supernet, data, Recipe((phase,), settings), folder=folder, progress=progress).train()


def fitted(supernet: GraphSupernet, data: ImageData, seed: int, options: Any) -> Estimator:
    """Return the predictor of `options.count` records of a trained supernet."""
    with progress_bar("records") as progress:
        records = collect(
            supernet,
            data,
            count=options.count,
            seed=seed,
            calibration_images=CALIBRATION_IMAGES,
            validation_images=VALIDATION_IMAGES,
            progress=progress,
        )
    return fit(records)
