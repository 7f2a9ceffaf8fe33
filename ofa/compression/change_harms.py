"""`change_harms`: how much the outputs of a network differ when one layer alone is changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.common.score_file import ScoreFile
from ofa.compression.changes import LayerChange, changed_in_place
from ofa.evaluation.outputs import parts_of


@torch.no_grad()
def change_harms(
    network: nn.Module,
    changes: Sequence[LayerChange],
    images: Tensor,
    scores: ScoreFile,
    progress: ProgressCallback = silent,
) -> tuple[float, ...]:
    """Return the harm of each change: the error of the outputs, as a part of their variance.

    It is the mean squared difference from the outputs of the network over the mean squared distance of these
    from their mean over the images, with all other layers unchanged; of several outputs, the mean of theirs.
    No labels are needed.

    Args:
        network: network in eval mode.
        changes: changes, each alone.
        images: some images (n, channels, h, w), n at least 2.
        scores: file of harms that are known already; new ones are added.
        progress: called per change.

    Raises:
        UserError: if there are fewer than two images, the outputs do not depend on them, or the file cannot
            be written.
    """
    if len(images) < 2:
        raise UserError(f"There are {len(images)} images to compare outputs on; expected at least 2.")
    expected = [part.double() for part in parts_of(network(images))]
    variances = [float(((part - part.mean(0)) ** 2).mean()) for part in expected]
    if not all(math.isfinite(variance) and variance > 0 for variance in variances):
        raise UserError(
            f"The outputs of the network have a variance of {min(variances, default=0):g} over {len(images)} "
            "images; expected outputs that depend on the image."
        )
    harms, trial = [], copy.deepcopy(network)
    for index, change in enumerate(changes):
        progress(index, len(changes), f"harm of {change.layer} {change.key}")

        def error_share(change: LayerChange = change) -> float:
            with changed_in_place(trial, change):
                outputs = parts_of(trial(images))
            errors = [
                float(((part.double() - own) ** 2).mean()) / variance
                for part, own, variance in zip(outputs, expected, variances, strict=True)
            ]
            return sum(errors) / len(errors)

        harms.append(scores.value(f"{change.layer} {change.key}", error_share))
    progress(len(changes), len(changes), "")
    return tuple(harms)
