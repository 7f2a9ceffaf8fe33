"""How long a training and the evaluations after it will take here, from a few steps on random images."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ofa.data.base import ImageData
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.evaluation.tasks import task_of
from ofa.runs.supernet_file import AnySupernet
from ofa.space.space import SearchSpace
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.known_faults import check_strided_convolutions
from ofa.training.optimizer import build_optimizer
from ofa.training.pace import NUM_VALIDATED
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import plan_step
from ofa.training.schedule import Position, schedule_of
from ofa.training.settings import TrainSettings
from ofa.training.step import TrainStep
from ofa.training.step_costs import phase_step_cost, relative_times

NUM_STEPS = 3
NUM_IMAGES = 64
NUM_READ = 48


@dataclass(frozen=True)
class RunDurations:
    """Estimated seconds.

    Attributes:
        training_s: training of the supernet, with its validations and the reading of images.
        evaluation_s: recalibration and evaluation of one sub-network of middling size.
    """

    training_s: float
    evaluation_s: float


def estimate_durations(
    supernet: AnySupernet, data: ImageData, recipe: Recipe, device: torch.device, *, calibration_images: int
) -> RunDurations:
    """Return how long a training on this machine and an evaluation take; some seconds of trying.

    Steps of every phase are run on random images and scaled by the cost of the networks that the phase draws.
    The estimate holds for a machine that stays as busy as it is now.

    Args:
        supernet: supernet as it is before the training; unchanged.
        data: image set; some of its training images are read.
        recipe: phases and settings of the training.
        device: device of the training.
        calibration_images: images that recalibrate a sub-network in the evaluations after the training.
    """
    settings = recipe.settings
    check_strided_convolutions(_smallest_network(supernet), device)
    # Trying changes the weights.
    supernet = copy.deepcopy(supernet).to(device).to(memory_format=torch.channels_last)
    schedule = schedule_of(recipe, data)
    steps = [schedule.steps(phase) for phase in recipe.phases]
    pairs = zip(recipe.phases, steps, strict=True)
    task = task_of(data, settings.loss)
    _, targets = next(iter(data.batches("train", settings.batch_size, device, settings.batch_size)))
    steps_s = sum(
        num * _step_s(supernet, phase, TrainStep(supernet, settings, device=device, task=task), targets)
        for phase, num in pairs
    )
    reading_s = _reading_s(data, settings, device, settings.batch_size * sum(steps))
    image_s = _image_s(supernet, device)
    validation_images = min(settings.validation_images, data.size("validation")) + settings.calibration_images
    # The end of the run has one more.
    num_validations = schedule.num_validations(Position()) + 1
    validations_s = num_validations * NUM_VALIDATED * validation_images * image_s
    return RunDurations(
        training_s=steps_s + reading_s + validations_s,
        evaluation_s=(calibration_images + data.size("validation")) * image_s,
    )


def _smallest_network(supernet: AbstractSupernet[nn.Module]) -> nn.Module:
    return supernet.extract(supernet.space.smallest)


def _step_s(supernet: AnySupernet, phase: Phase, step: TrainStep, targets: torch.Tensor) -> float:
    """Return the mean seconds of a step of a phase on random images with these targets."""
    space, settings, device = phase.space(supernet.space), step.settings, targets.device
    optimizer = build_optimizer(supernet, 0.0, settings.momentum, settings.weight_decay)
    supernet.train()
    elapsed_s = timed_cost = 0.0
    for number in range(NUM_STEPS + 1):
        plan = plan_step(space, phase, settings.seed, number)
        images = _random_images(supernet.space.in_channels, settings.batch_size, plan.resolution, device)
        start_s = time.perf_counter()
        pending = step(
            plan, (images, targets), teacher=None, in_place=False, optimizer=optimizer, seed=number
        )
        step.read(pending)
        if number:  # The first one also warms up.
            elapsed_s += time.perf_counter() - start_s
            timed_cost += float(relative_times(supernet, plan.genomes).sum())
    return elapsed_s / timed_cost * phase_step_cost(supernet, phase, settings.seed)


def _reading_s(data: ImageData, settings: TrainSettings, device: torch.device, num_images: int) -> float:
    """Return the seconds until so many training images are read and augmented.

    Each image is read for the first time once, which also fills a cache of shrunk copies.
    """
    size, num_train = min(NUM_READ, data.size("train")), data.size("train")
    seconds = []
    for _ in ("first", "later"):
        start_s = time.perf_counter()
        next(data.train_batches(size, settings.seed, 0, device))
        seconds.append((time.perf_counter() - start_s) / size)
    num_first = min(num_images, num_train)
    return seconds[0] * num_first + seconds[1] * (num_images - num_first)


def _image_s(supernet: AnySupernet, device: torch.device) -> float:
    """Return the mean seconds of a forward pass for one image, over networks spread evenly in log MACs."""
    space: SearchSpace = supernet.space
    config = space.middle
    network = supernet.extract(config).eval().to(memory_format=torch.channels_last)
    images = _random_images(supernet.space.in_channels, NUM_IMAGES, config.resolution, device)
    recalibrate_batchnorm(network, [images])
    start_s = time.perf_counter()
    recalibrate_batchnorm(network, [images])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elapsed_s = time.perf_counter() - start_s
    low, middle, high = supernet.costs["macs"](space.genomes([space.smallest, config, space.largest]))
    mean_macs = (high - low) / np.log(high / low) if high > low else middle
    return float(elapsed_s / NUM_IMAGES * mean_macs / middle)


def _random_images(in_channels: int, count: int, side: int, device: torch.device) -> torch.Tensor:
    images = torch.randn(count, in_channels, side, side, generator=torch.Generator().manual_seed(0))
    return images.to(device).contiguous(memory_format=torch.channels_last)
