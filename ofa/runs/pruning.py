"""`prune`: a smaller network from a trained one of one's own, in one step or in several, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.common.figures import save_png
from ofa.common.files import write_atomic
from ofa.common.progress import Note, ProgressCallback
from ofa.common.score_file import ScoreFile
from ofa.data.base import ImageData
from ofa.evaluation.batches import split_batches, split_images
from ofa.evaluation.evaluate import SubnetEvaluator, score
from ofa.evaluation.tasks import task_of
from ofa.graph.iterative_pruning import PruningStep, iterative
from ofa.graph.measured_cost import MeasuredCost
from ofa.graph.one_step_pruning import fitted_network, one_step, reconstruction
from ofa.graph.sensitivity_figure import sensitivity_figure
from ofa.graph.space import GraphSpace
from ofa.graph.supernet import GraphSupernet
from ofa.graph.weights import load_weights
from ofa.runs.pruned import PrunedNetwork, cost_text
from ofa.runs.pruned_files import save_network
from ofa.runs.pruning_settings import LATENCY, PruningSettings
from ofa.space.plain import GeneConfig
from ofa.training.channel_order import sort_channels
from ofa.training.checks import with_losses_of
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

Bar = Callable[[str], AbstractContextManager[ProgressCallback]]
"""Opens a progress bar with a description; see `ofa.common.progress.progress_bar`."""

MeasureNetworks = Callable[[Sequence[nn.Module]], Sequence[float]]
"""Measures the latency (ms) of networks, which are on the CPU in eval mode."""

LATENCY_FILE = "latency.jsonl"


def prune(
    supernet: GraphSupernet,
    data: ImageData,
    settings: PruningSettings,
    folder: Path,
    *,
    bar: Bar,
    note: Note,
    measure: MeasureNetworks | None = None,
    original: nn.Module | None = None,
) -> PrunedNetwork:
    """Prune a trained network and fine-tune it; a repeated call with the same arguments goes on.

    Args:
        supernet: the converted network on the device, in eval mode; it holds the pruned network afterwards.
        data: images; the network is chosen by validation images, test images only judge the result.
        settings: method, limits and training; a single share.
        folder: folder of scores, checkpoints, networks of the steps and figures.
        bar: opens progress bars.
        note: called with lines for the user.
        measure: measures latency, for a limit of it.
        original: network that teaches and that the result is compared with, where the supernet holds one
            that was made smaller already; None for its largest network.

    Raises:
        UserError: for a limit that cannot be reached, or a file that cannot be written.
        StoppedError: after a signal, with everything that was scored or trained kept.
    """
    original = original or supernet.extract(supernet.space.largest).eval()
    pruning = _Pruning(supernet, data, settings, original, folder=folder, bar=bar, note=note, measure=measure)
    values = [pruning.score_on(original, split) for split in ("validation", "test")]
    metric = pruning.evaluator.task.metric
    costs_text = ", ".join(cost_text(name, value) for name, value in pruning.full_costs.items())
    note(f"the network: validation {metric.title} {metric.show(values[0])}, {costs_text}")
    limits = settings.limits_of(pruning.full_costs["macs"])
    measured = pruning.measured_costs(limits)
    run = pruning.in_one_step if settings.method == "one_step" else pruning.in_steps
    config = run(limits, measured)
    network = supernet.extract(config).eval()
    genomes = supernet.space.genomes([config])
    costs = {
        name: (full, float(supernet.costs[name](genomes)[0])) for name, full in pruning.full_costs.items()
    }
    for name, cost in measured.items():
        full, pruned = cost.measured([supernet.space.largest, config])
        costs[name] = (float(full), float(pruned))
    return PrunedNetwork(
        network=network,
        config=config,
        metric=metric,
        original=values[0],
        before=pruning.score_before,
        after=pruning.score_on(network, "validation"),
        test=pruning.score_on(network, "test"),
        original_test=values[1],
        costs=costs,
        num_images=(pruning.evaluator.num_images, data.size("test")),
    )


class _Pruning:
    """A pruning with what all of its parts need."""

    def __init__(
        self,
        supernet: GraphSupernet,
        data: ImageData,
        settings: PruningSettings,
        original: nn.Module,
        *,
        folder: Path,
        bar: Bar,
        note: Note,
        measure: MeasureNetworks | None,
    ) -> None:
        self.supernet, self.data, self.settings, self.folder = supernet, data, settings, folder
        self.bar, self.note, self.measure = bar, note, measure
        self.resolution = supernet.space.largest.resolution
        self.device = next(supernet.parameters()).device
        self.evaluator = SubnetEvaluator(
            supernet,
            data,
            calibration_images=settings.calibration_images,
            limit=settings.validation_images,
        )
        self.original = original
        genomes = supernet.space.genomes([supernet.space.largest])
        self.full_costs = {name: float(cost(genomes)[0]) for name, cost in supernet.costs.items()}
        self.score_before = 0.0

    # -- networks ------------------------------------------------------------------------------------

    def recalibrate(self, network: nn.Module) -> None:
        network.to(memory_format=torch.channels_last)
        self.evaluator.recalibrate(network, self.resolution)

    @cached_property
    def fitting_images(self) -> Tensor | None:
        """The images that layers are fitted to; None to fit none."""
        limit = self.settings.reconstruction_images
        if not limit:
            return None
        return torch.cat(list(split_images(self.data, "train", self.resolution, self.device, limit)))

    def evaluate(self, network: nn.Module) -> float:
        value = score(network, self.evaluator.batches(self.resolution), self.evaluator.task)
        return value * self.evaluator.task.metric.sign

    def score_on(self, network: nn.Module, split: str) -> float:
        if split == "validation":
            return self.evaluate(network) * self.evaluator.task.metric.sign
        images = split_batches(self.data, split, self.resolution, self.device)
        return score(network, images, self.evaluator.task)

    def sort(self, supernet: GraphSupernet, space: GraphSpace) -> None:
        importance, tuning = self.settings.importance, self.settings.finetuning
        limit = self.settings.calibration_images
        batches = self.data.batches("train", tuning.batch_size, self.device, limit)
        sort_channels(supernet, space, importance, batches, task_of(self.data, tuning.loss))

    def measured_costs(self, limits: Mapping[str, float]) -> dict[str, MeasuredCost]:
        """Return the costs that are measured because they have a limit."""
        if LATENCY not in limits:
            return {}
        assert self.measure is not None

        def measure(configs: Sequence[GeneConfig]) -> Sequence[float]:
            assert self.measure is not None
            return self.measure([self.supernet.extract(config).eval().cpu() for config in configs])

        scores = ScoreFile(self.folder / LATENCY_FILE)
        return {LATENCY: MeasuredCost(self.supernet.space, measure, scores=scores, seed=self.settings.seed)}

    # -- methods -------------------------------------------------------------------------------------

    def in_one_step(self, limits: Mapping[str, float], measured: Mapping[str, MeasuredCost]) -> GeneConfig:
        folder = self.folder / "one_step"
        candidates = one_step(
            self.supernet,
            limits,
            recalibrate=self.recalibrate,
            evaluate=self.evaluate,
            sort=self.sort,
            fitting_images=self.fitting_images,
            num_candidates=self.settings.candidates,
            seed=self.settings.seed,
            measured=measured,
            scores=ScoreFile(folder / "candidates.jsonl"),
            progress=partial(self.bar, "evaluating candidates"),
        )
        self.note(f"{len(candidates)} candidates within the limits; the best: {candidates[0].config}")
        reconstruct = reconstruction(self.supernet, self.fitting_images)
        network = fitted_network(self.supernet, candidates[0].config, reconstruct)
        self.fine_tune(network, 1, folder, "fine-tuning")
        self.supernet.insert(candidates[0].config, network)
        return candidates[0].config

    def in_steps(self, limits: Mapping[str, float], measured: Mapping[str, MeasuredCost]) -> GeneConfig:
        num_steps = self.settings.steps
        steps = iterative(
            self.supernet,
            limits,
            num_steps=num_steps,
            recalibrate=self.recalibrate,
            evaluate=self.evaluate,
            fine_tune=self.after_step,
            sort=self.sort,
            fitting_images=self.fitting_images,
            num_points=self.settings.points,
            measured=measured,
            scores_of=lambda number: ScoreFile(self.step_folder(number) / "sensitivity.jsonl"),
            progress=lambda number: self.bar(f"sensitivity, step {number} of {num_steps}"),
        )
        return steps[-1].config

    def step_folder(self, number: int) -> Path:
        return self.folder / f"step_{number}"

    def after_step(self, network: nn.Module, step: PruningStep) -> None:
        """Draw the sensitivity of a step, and fine-tune its network."""
        metric, num_steps = self.evaluator.task.metric, self.settings.steps
        folder = self.step_folder(step.number)
        figure = sensitivity_figure(
            step.sensitivity,
            title=f"step {step.number} of {num_steps}: loss when one group alone is narrower",
            label=f"validation {metric.title} lost{', points' if metric.is_fraction else ''}",
            scale=metric.scale,
        )
        path = folder / "sensitivity.png"
        write_atomic(path, partial(save_png, figure))
        costs = ", ".join(cost_text(name, value) for name, value in step.costs.items())
        self.note(f"step {step.number} of {num_steps}: {costs}; sensitivity: {path}")
        self.fine_tune(network, step.number, folder, f"fine-tuning, step {step.number} of {num_steps}")

    def fine_tune(self, network: nn.Module, number: int, folder: Path, description: str) -> None:
        """Train a network in place and recalibrate it; what was trained before is loaded."""
        settings = self.settings.finetuning_of(number)
        start, tuned = folder / "start.safetensors", folder / "tuned.safetensors"
        if start.exists():
            load_weights(network, start, "the network of this step")
        else:
            self.recalibrate(network)
            save_network(network, start)
        self.score_before = self.score_on(network, "validation")
        if tuned.exists():
            load_weights(network, tuned, "the network of this step")
        else:
            if settings.length:
                self._train(network, settings, folder, description)
            save_network(network, tuned)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def _train(self, network: nn.Module, settings: FinetuneSettings, folder: Path, description: str) -> None:
        settings = with_losses_of(settings, task_of(self.data, settings.loss), self.note)
        with self.bar(description) as progress:
            fit(
                network,
                self.data,
                settings,
                resolution=self.resolution,
                teacher=self.original if settings.distillation_ratio else None,
                folder=folder,
                progress=progress,
            )
        self.recalibrate(network)
