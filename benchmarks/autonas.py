"""The column of ModelOpt's autonas in `user_model.py`: nvidia-modelopt 0.47 with torchprofile 0.0.4."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    DEVICE,
    SIDE,
    VALIDATION_IMAGES,
    calibration_images,
    training,
    tuned,
)

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import score
from ofa.training.fitting import fit

_EXAMPLE = torch.zeros(1, 1, SIDE, SIDE)


def found_by_autonas(
    original: nn.Module, data: ImageData, shares: Sequence[float], seed: int, options: Any
) -> Iterator[nn.Module]:
    """Yield a network for each share, found by ModelOpt in a supernet that it samples at random.

    It is trained with the same teacher, loss and learning rate as our supernet; batch norm is recalibrated
    on as many images.
    """
    nas: Any = importlib.import_module("modelopt.torch.nas")
    torch.manual_seed(seed)
    supernet: Any = nas.convert(copy.deepcopy(original), mode="autonas")
    settings = training(seed, lr=options.lr, steps=options.autonas_steps)
    with progress_bar("autonas") as progress:
        fit(supernet, data, settings, resolution=SIDE, teacher=original, progress=progress)

    def accuracy(network: nn.Module) -> float:
        return score(network, data.batches("validation", 250, DEVICE, VALIDATION_IMAGES))

    nas.sample(supernet, max)
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    for share, steps, lr in zip(shares, options.last_steps, options.tune_lr, strict=True):
        # A copy of a converted network cannot be exported.
        again: Any = nas.convert(copy.deepcopy(original), mode="autonas")
        again.load_state_dict(state)
        found, _ = nas.search(
            again,
            constraints={"flops": f"{100 * share:g}%"},
            dummy_input=_EXAMPLE,
            config={
                "data_loader": [(images,) for images in calibration_images(data)],
                "collect_func": lambda batch: batch[0],
                "max_iter_data_loader": CALIBRATION_IMAGES // 250,
                "score_func": accuracy,
                "num_iters": options.autonas_candidates,
                "verbose": False,
            },
        )
        # The search has exported it.
        yield tuned(found, original, data, training(seed, lr=lr, steps=steps))
