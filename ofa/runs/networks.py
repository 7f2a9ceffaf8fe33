"""The networks that a report compares: the bundles of a run, and sub-networks drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ofa.evaluation.evaluate import SubnetEvaluator, top1
from ofa.export.bundle import load_bundle
from ofa.runs.trained import TrainedRun
from ofa.modules.static import StaticNetwork
from ofa.space.subnet import SubnetConfig


@dataclass(frozen=True)
class RunNetwork:
    """One network, on the CPU.

    Attributes:
        name: of its bundle; empty for a network drawn at random.
        subnet: name under which it was chosen, as in the provenance of its bundle.
        config: what it is.
        network: recalibrated, in eval mode.
        top1: its accuracy (0..1) on the images of the evaluator.
    """

    name: str
    subnet: str
    config: SubnetConfig
    network: StaticNetwork
    top1: float


def run_networks(
    run: TrainedRun, evaluator: SubnetEvaluator[StaticNetwork], num_random: int, seed: int
) -> list[RunNetwork]:
    """Return all bundles of a run and `num_random` random networks of its supernet, evaluated.

    Raises:
        UserError: if a bundle is damaged.
    """
    found = []
    for file in sorted(run.directory.bundles.glob("[!.]*/subnet.json")):
        bundle = load_bundle(file.parent)
        subnet = str(bundle.info.provenance.get("subnet", ""))
        # The layout of the random ones; without it PyTorch takes 6 % longer on a CPU.
        network = bundle.network.to(memory_format=torch.channels_last)
        found.append((bundle.path.name, subnet, bundle.info.config, network))
    space = run.trained_space
    for genome in space.sample(num_random, np.random.default_rng(seed)):
        config = space.config(genome)
        found.append(("", "", config, evaluator.network(config)))
    candidates = []
    for name, subnet, config, network in found:
        accuracy = top1(network.to(run.device), evaluator.batches(config.resolution))
        candidates.append(RunNetwork(name, subnet, config, network.cpu(), accuracy))
    return candidates
