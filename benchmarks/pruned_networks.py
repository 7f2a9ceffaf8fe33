"""Networks of several sizes by pruning one trained network, each by itself or from the next larger one."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from small_networks import ResNet20
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    RULES,
    SIDE,
    VALIDATION_IMAGES,
    training,
    tuned,
)

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.graph.convert import make_elastic
from ofa.graph.genes import ChoiceRule
from ofa.graph.supernet import GraphSupernet
from ofa.runs.pruning import prune
from ofa.runs.pruning_settings import PruningSettings
from ofa.training.settings import FinetuneSettings


def pruned(
    original: nn.Module,
    data: ImageData,
    shares: Sequence[float],
    seed: int,
    options: Any,
    *,
    candidates: int = 1,
    is_fitted: bool = False,
) -> Iterator[nn.Module]:
    """Yield a network for each share, pruned and fine-tuned by itself; the first candidate is uniform."""
    lowest = 16 if candidates > 1 else 32 if isinstance(original, ResNet20) else 24
    supernet = elastic(original, lowest, RULES if candidates > 1 and isinstance(original, ResNet20) else ())
    for share, steps, lr in zip(shares, options.tune_steps, options.tune_lr, strict=True):
        settings = pruning(share, training(seed, lr=lr, steps=steps), seed, candidates, is_fitted)
        folder = options.folder / f"work-{options.job}"
        shutil.rmtree(folder, ignore_errors=True)
        # A pruned supernet holds the pruned network.
        yield prune(
            copy.deepcopy(supernet), data, settings, folder, bar=progress_bar, note=partial(print, flush=True)
        ).network


def elastic(original: nn.Module, lowest: int, rules: Sequence[ChoiceRule] = ()) -> GraphSupernet:
    """Return the supernet whose groups keep `lowest` to 64 parts in 64 of their channels."""
    return make_elastic(
        original,
        torch.rand(2, 1, SIDE, SIDE),
        widths=[part / 64 for part in range(lowest, 65)],
        kernel_sizes=[],
        depths=[1.0],
        divisor=1,
        rules=rules,
    ).eval()


def pruning(
    share: float, finetuning: FinetuneSettings, seed: int, candidates: int, is_fitted: bool
) -> PruningSettings:
    """Return the settings of a pruning in one step."""
    return PruningSettings(
        method="one_step",
        macs_share=share,
        candidates=candidates,
        steps=1,
        points=1,
        calibration_images=CALIBRATION_IMAGES,
        reconstruction_images=256 if is_fitted else 0,
        validation_images=VALIDATION_IMAGES,
        seed=seed,
        finetuning=finetuning,
    )


def shrunk(
    original: nn.Module,
    data: ImageData,
    shares: Sequence[float],
    seed: int,
    options: Any,
    *,
    is_fitted: bool = False,
) -> Iterator[nn.Module]:
    """Yield a network for each share, each pruned uniformly from the next larger one when that is tuned."""
    supernet = elastic(original, 32 if isinstance(original, ResNet20) else 24)
    networks: dict[float, nn.Module] = {}
    lengths = dict(zip(shares, zip(options.tune_steps, options.tune_lr, strict=True), strict=True))
    for share in sorted(shares, reverse=True):
        steps, lr = lengths[share]
        settings = pruning(share, training(seed, lr=lr, steps=0), seed, 1, is_fitted)
        folder = options.folder / f"work-{options.job}"
        shutil.rmtree(folder, ignore_errors=True)
        found = prune(supernet, data, settings, folder, bar=progress_bar, note=partial(print, flush=True))
        networks[share] = tuned(found.network, original, data, training(seed, lr=lr, steps=steps))
        supernet.insert(found.config, networks[share])
    yield from (networks[share] for share in shares)
