"""Mixup and cutmix: images of a batch mixed in pairs, with the targets that belong to them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Mixing:
    """Mixes every image of a batch with its neighbour (Zhang et al. 2018; Yun et al. 2019).

    One share is drawn for the whole batch. Kind, share and place are functions of seed and step alone.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int, seed: int) -> None:
        """Take both alphas of the Beta distributions, 0 for none; with both, one is drawn for each step.

        Args:
            mixup: alpha of the share by which two images are blended.
            cutmix: alpha of the share of the area that is not replaced by a rectangle of another image.
            num_classes: number of classes.
            seed: seed of the run.
        """
        self._alphas = {name: alpha for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0}
        self._num_classes, self._seed = num_classes, seed

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the mixed images and their targets.

        Args:
            images: images (n, channels, h, w).
            labels: labels (n,), int64.
            step: number of the step.

        Returns:
            Images in the shape of `images`, and probabilities of the classes (n, num_classes), float32;
            without alphas the arguments.
        """
        if not self._alphas:
            return images, labels
        # A fourth number, so that no other draw of the step has the same generator.
        rng = np.random.default_rng([self._seed, step, 0, 1])
        kind = str(rng.choice(list(self._alphas)))
        share = float(rng.beta(self._alphas[kind], self._alphas[kind]))
        if kind == "mixup":
            images = torch.lerp(images.roll(1, 0), images, share)
        else:
            images, share = _paste(images, share, rng)
        hot = torch.zeros(len(labels), self._num_classes, device=labels.device).scatter_(
            1, labels[:, None], 1.0
        )
        targets = torch.lerp(hot.roll(1, 0), hot, share)
        return images.contiguous(memory_format=torch.channels_last), targets


def _paste(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return images with a rectangle of their neighbour, and the share of the area that is their own."""
    height, width = images.shape[-2:]
    side = (1 - share) ** 0.5
    edges = []
    for length in (height, width):
        centre, half = rng.integers(length), side * length / 2
        edges.append(slice(max(round(centre - half), 0), min(round(centre + half), length)))
    rows, columns = edges
    pasted = images.clone()
    pasted[..., rows, columns] = images.roll(1, 0)[..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pasted, 1 - area / (height * width)
