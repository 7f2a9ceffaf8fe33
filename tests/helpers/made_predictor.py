"""A predictor of made-up accuracies, for searches in a run that was never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ofa.common.config import build
from ofa.launch import compose_group
from ofa.space.staged import StagedSpace
from predictors.fitting import fit_mlp
from predictors.settings import FitSettings


def save_predictor(run: Path, space_name: str) -> StagedSpace:
    """Write the predictor of a run for the space of that name in `conf/`, and return the space."""
    space = build(StagedSpace, compose_group("space", space_name))
    genomes, rng = space.sample(40, np.random.default_rng(0)), np.random.default_rng(1)
    top1 = 0.8 + 0.1 * rng.random(40)
    fit_mlp(space, genomes, top1, FitSettings(hidden_units=16, members=2), 0).save(run / "predictor.pt")
    return space
