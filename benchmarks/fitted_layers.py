"""Smaller networks before any training: layers as they are cut, and fitted to what they computed before.

    python benchmarks/fitted_layers.py ROOT [--models resnet20] [--shares 0.7 0.5 0.3] [--images 256]

ROOT holds FashionMNIST/raw. From one trained original (see `trained_originals.py`) two kinds of networks are
made for each share of the multiply-accumulates: the uniform plan of `ofa prune`, which gives all groups the
same share of their channels, and splits of all convolutions by singular values. The batch norm of each is
recalibrated; test images judge it, once with its weights as they are, once fitted.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pruned_networks import elastic
from torch import nn
from trained_originals import DEVICE, MODELS, SIDE, calibration_images, costs_of, images_of, trained_original

from ofa.common.errors import UserError
from ofa.compression.candidates import find_candidates
from ofa.compression.changes import apply_changes
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import score
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.graph.one_step_pruning import candidates_within, checked_costs
from ofa.graph.reconstruction import Reconstructor

Fit = Callable[[nn.Module], object]


def narrowed(original: nn.Module, share: float, images: torch.Tensor) -> tuple[nn.Module, Fit]:
    """Return the uniform plan with a share of the multiply-accumulates, and what fits it."""
    supernet = elastic(original, 16)
    space = supernet.space
    supernet.sort_channels(space)
    full = space.genomes([space.largest])
    limits = {"macs": share * float(supernet.costs["macs"](full)[0])}
    costs = checked_costs(space, limits, {})
    config = space.config(candidates_within(space, limits, costs, 1, np.random.default_rng(0))[0])
    reconstructor = Reconstructor(supernet.extract(space.largest).eval(), images)
    fit = partial(reconstructor.fit, positions=supernet.positions(config))
    return supernet.extract(config).eval(), fit


def split(original: nn.Module, share: float, images: torch.Tensor) -> tuple[nn.Module, Fit]:
    """Return the network with every convolution split to a share of its multiply-accumulates at most."""
    changes = []
    for layer in find_candidates(original, (1, SIDE, SIDE), ("split",)).layers:
        costs = zip(layer.changed_macs, layer.changes, strict=True)
        choices = [(macs, change) for macs, change in costs if macs <= share * layer.macs]
        if choices:
            changes.append(max(choices, key=lambda choice: choice[0])[1])
    layers = {f"{change.layer}.1": change.layer for change in changes}
    fit = partial(Reconstructor(original, images).fit_factors, layers=layers)
    return apply_changes(original, changes), fit


def recalibrated_top1(network: nn.Module, data: ImageData) -> float:
    """Return the top-1 (0..1) on all test images after a recalibration."""
    recalibrate_batchnorm(network, calibration_images(data))
    return score(network.eval(), data.batches("test", 250, DEVICE))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["resnet20"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.5, 0.3])
    parser.add_argument("--images", type=int, default=256, help="images that layers are fitted to")
    parser.add_argument("--folder", type=Path, default=Path("runs/fitted_layers"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images_of(options.root)
    images = torch.cat([batch for batch, _ in data.batches("train", 256, DEVICE, options.images)])
    print("| network | change | MACs | cut | fitted | processor s |\n|---|---|---|---|---|---|")
    for name in options.models:
        original = trained_original(name, data, options.folder)
        full = costs_of(original)[0]
        top1 = score(original, data.batches("test", 250, DEVICE))
        print(f"| {name} | none | 100 % | {100 * top1:.2f} % | | |", flush=True)
        for change, make in (("channels", narrowed), ("splits", split)):
            for share in options.shares:
                try:
                    network, fit = make(original, share, images)
                except UserError as error:
                    print(error)
                    break
                before = recalibrated_top1(copy.deepcopy(network), data)
                start_s = time.process_time()
                fit(network)
                seconds = time.process_time() - start_s
                macs = 100 * costs_of(network)[0] / full
                values = f"{100 * before:.2f} % | {100 * recalibrated_top1(network, data):.2f} %"
                print(f"| {name} | {change} | {macs:.0f} % | {values} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
