"""The networks that a report compares: the bundles of a run, and sub-networks drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from ofa.common.expectation import MetricValue
from ofa.evaluation.confusion import Confusion
from ofa.evaluation.evaluate import Batches, SubnetEvaluator, measure_detailed
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.evaluate import card_batches, runnable_module
from ofa.modules.cost import ModuleCost, module_cost
from ofa.runs.retarget import check_classes
from ofa.runs.trained import TrainedRun
from ofa.space.config import AnyConfig


@dataclass(frozen=True)
class RunNetwork:
    """One network, on the CPU.

    Attributes:
        name: name of the network's bundle; empty for a random network.
        subnet: name under which it was chosen, as in the provenance of its bundle.
        config: config of a sub-network; None for any other network.
        network: network in eval mode, with its own batch-norm statistics.
        image_shape: shape of one image: (channels, height, width).
        values: its metrics on the evaluator's images, by name.
        confusion: how it takes classes for each other on them; None for a task without classes.
        expected: what the card of a network that was trained further, or of another one, lets expect; None
            for the supernet's own.
    """

    name: str
    subnet: str
    config: AnyConfig | None
    network: nn.Module
    image_shape: tuple[int, int, int]
    values: Mapping[str, float]
    confusion: Confusion | None
    expected: MetricValue | None = None

    @cached_property
    def cost(self) -> ModuleCost:
        """What one image costs: MACs, parameters, memory of activations."""
        return module_cost(self.network, self.image_shape)


def run_networks(
    run: TrainedRun,
    evaluator: SubnetEvaluator[nn.Module],
    split: str,
    *,
    num_random: int,
    seed: int,
    trust: bool = False,
) -> list[RunNetwork]:
    """Return all bundles of a run and `num_random` random networks of its supernet, evaluated.

    Args:
        run: the run.
        evaluator: evaluator of the run's supernet, on the whole of `split`.
        split: split that is evaluated.
        num_random: number of random networks.
        seed: seed of the random networks.
        trust: run pt2 files of unknown architecture that were not exported on this machine.

    Raises:
        UserError: if a bundle is damaged, its images are others than the run's, or it cannot be run because
            its architecture is unknown and it has no pt2 file that is trusted.
    """
    networks, class_names = [], run.data.info.class_names
    for path in run.directory.bundle_paths():
        networks.append(_bundle_network(run, evaluator, split, load_bundle(path), trust))
    space = run.trained_space
    for genome in space.sample(num_random, np.random.default_rng(seed)):
        config = space.config(genome)
        network = evaluator.network(config)
        meter = measure_detailed(network, evaluator.batches(config.resolution), evaluator.task)
        shape = (space.in_channels, config.resolution, config.resolution)
        found = meter.values(), meter.confusion(class_names)
        networks.append(RunNetwork("", "", config, network.cpu(), shape, *found))
    return networks


def _bundle_network(
    run: TrainedRun, evaluator: SubnetEvaluator[nn.Module], split: str, bundle: Bundle, trust: bool
) -> RunNetwork:
    check_classes(bundle, run.data.info)
    card, config = bundle.card, None
    # The layout of the random ones; without it PyTorch takes 6 % longer on a CPU.
    network = runnable_module(bundle, trust=trust).to(memory_format=torch.channels_last).to(run.device)
    batches: Batches
    if card.subnet is None or card.subnet.compression is not None:
        batches = card_batches(card, run.data, split, device=run.device)
    else:
        config = card.subnet.config
        batches = evaluator.batches(config.resolution)
    meter = measure_detailed(network, batches, evaluator.task.in_units(card.target_scale))
    found = meter.values(), meter.confusion(run.data.info.class_names)
    subnet = str(card.provenance.get("subnet", ""))
    expected = card.expected_metric if config is None or "finetuned" in card.provenance else None
    name, shape = bundle.path.name, card.input_shape
    return RunNetwork(name, subnet, config, network.cpu(), shape, *found, expected)
