"""`compress`: a smaller network from a trained one by a recipe of steps, resumable."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.common.figures import save_png
from ofa.common.files import write_atomic
from ofa.common.progress import Note
from ofa.common.score_file import ScoreFile
from ofa.compression.changes import BASIS_FORMS, apply_structure
from ofa.compression.facts import CompressionFacts, InputRange
from ofa.compression.fake_quantisation import fake_quantised, quantised_layers
from ofa.compression.nonzero_cost import nonzero_macs, zero_share
from ofa.compression.plan import UNITS
from ofa.compression.programs import TimedModule
from ofa.compression.sparse import make_sparse, sparse_layers, zeros_kept
from ofa.compression.steps_figure import StepPoint, steps_figure
from ofa.compression.trained_ranges import kept_ranges
from ofa.compression.unused_units import cut_shapes
from ofa.data.base import ImageData
from ofa.data.target_scale import TargetScale
from ofa.evaluation.batches import split_batches, split_images
from ofa.evaluation.evaluate import score
from ofa.evaluation.tasks import task_of
from ofa.modules.cost import module_cost
from ofa.runs.channels import narrow_channels
from ofa.runs.compressed import CompressedNetwork, StepResult
from ofa.runs.compression_plan import (
    LATENCY_FILE,
    Bar,
    MeasureModules,
    decide_changes,
    latency_after,
)
from ofa.runs.compression_settings import CHANNELS, PENNI, QAT, SPARSE, CompressionSettings
from ofa.runs.compression_training import StepTraining
from ofa.runs.decided_changes import DecidedChanges
from ofa.runs.penni import train_penni

CONTROL, UNCOMPRESSED = "control", "uncompressed"


def compress(
    original: nn.Module,
    data: ImageData,
    settings: CompressionSettings,
    folder: Path,
    *,
    resolution: int,
    scale: TargetScale | None = None,
    earlier: CompressionFacts | None = None,
    bar: Bar,
    note: Note,
    measure: MeasureModules | None = None,
    plan_only: bool = False,
) -> CompressedNetwork | None:
    """Compress a trained network; a repeated call with the same arguments goes on.

    Args:
        original: the network on the device of evaluation and training, in eval mode; not changed.
        data: images; plans and training see training images, steps are judged by validation images, test
            images judge the result.
        settings: the steps; int8 is made when the network is exported.
        folder: folder of latencies, harms, plan, checkpoints, networks and the figure.
        resolution: side of the network's images in pixels.
        scale: scale of the outputs of a regression; None for other tasks.
        earlier: what an earlier compression of the network changed; None for nothing.
        bar: opens progress bars.
        note: called with lines for the user.
        measure: measures latency, for a limit of it.
        plan_only: whether to stop after the plan.

    Returns:
        The compressed network; None after the plan.

    Raises:
        UserError: if nothing can be changed, a limit cannot be kept, or a file cannot be written.
        StoppedError: after a signal, with everything that was measured or trained kept.
    """
    recipe = _Recipe(original, data, settings, folder, resolution=resolution, scale=scale, bar=bar, note=note)
    return recipe.run(earlier or CompressionFacts(), measure, plan_only=plan_only)


class _Recipe:
    """A compression with what all of its steps need."""

    def __init__(
        self,
        original: nn.Module,
        data: ImageData,
        settings: CompressionSettings,
        folder: Path,
        *,
        resolution: int,
        scale: TargetScale | None,
        bar: Bar,
        note: Note,
    ) -> None:
        self.original, self.data, self.settings, self.folder = original, data, settings, folder
        self.resolution, self.bar, self.note = resolution, bar, note
        self.device = next(original.parameters()).device
        self.shape = (data.info.in_channels, resolution, resolution)
        self.task = task_of(data).in_units(scale)
        self.training = StepTraining(original, data, settings, folder, resolution, scale, bar, note)
        self.results: list[StepResult] = []
        self.latency_ms: float | None = None

    def run(
        self, earlier: CompressionFacts, measure: MeasureModules | None, *, plan_only: bool
    ) -> CompressedNetwork | None:
        narrowed = narrow_channels(self.training) if CHANNELS in self.settings.steps else self.original
        decided = self.decide(narrowed, measure)
        if plan_only:
            return None
        timed = decided if decided is not None and decided.cost == "latency_ms" else None
        if timed is not None:
            self.latency_ms = timed.before if timed.full_cost is None else timed.full_cost
        self.add_result(UNCOMPRESSED, self.original)
        if narrowed is not self.original:
            self.latency_ms = None if timed is None else timed.before
            self.add_result(CHANNELS, narrowed)
        network, changes = copy.deepcopy(narrowed), earlier.changes
        pattern, sparse_names = earlier.pattern, earlier.sparse_layers
        if decided is not None:
            network = self.training.changed(narrowed, decided.changes)
            changes = (*changes, *decided.changes)
            self.latency_ms = None if timed is None else timed.after
            self.training.recalibrate(network)
            self.add_result("+".join(self.settings.forms), network)
        length = self.settings.finetuning.length * len(self.settings.trainings)
        if decided is not None and any(change.form in BASIS_FORMS for change in decided.changes):
            trained = train_penni(narrowed, decided.changes, self.training)
            network, sparse_names = trained.network, trained.sparse_layers
            changes = (*earlier.changes, *trained.changes)
            length += sum(self.settings.penni_lengths)
            self.measure_latency(narrowed, network, decided, measure)
            self.add_result("penni, trained", network)
        shapes = earlier.shapes
        if {CHANNELS, PENNI} & set(self.settings.steps):
            shapes = cut_shapes(network, apply_structure(self.original, changes[len(earlier.changes) :]))
        if SPARSE in self.settings.steps:
            pattern = self.settings.sparse
            sparse_names, obstacles = sparse_layers(network, pattern)
            self.note_dense(obstacles)
            make_sparse(network, pattern, sparse_names)
            self.training.recalibrate(network)
            self.add_result(SPARSE, network)
        for name in self.settings.trainings:
            context = self.while_trained(network, name, sparse_names)
            self.training(network, name, self.settings.finetuning.length, context=context)
            self.add_result(name, network)
        if length and self.settings.control:
            self.add_control(length)
        facts = CompressionFacts(changes, pattern, sparse_names, shapes, self.input_ranges(network))
        self.draw()
        tests = [score(module, self.batches("test"), self.task) for module in (self.original, network)]
        num_images = (self.data.size("validation"), self.data.size("test"))
        return CompressedNetwork(
            network, facts, self.task.metric, tuple(self.results), num_images, (tests[0], tests[1])
        )

    # -- steps -----------------------------------------------------------------------------------------

    def decide(self, network: nn.Module, measure: MeasureModules | None) -> DecidedChanges | None:
        """Return the changes of a network's convolutions; None without a step that changes them."""
        if not self.settings.forms:
            return None
        images = torch.cat(list(self.images("train", self.settings.harm_images))).cpu()
        decided = decide_changes(
            copy.deepcopy(network).cpu(),
            images,
            self.settings.offered_forms,
            self.settings.limits,
            self.folder,
            bar=self.bar,
            note=self.note,
            measure=measure,
            rank=self.settings.penni.rank if self.settings.is_uniform else None,
            uncompressed=None if network is self.original else copy.deepcopy(self.original).cpu(),
        )
        for line in (*decided.lines, decided.text):
            self.note(line)
        return decided

    def note_dense(self, obstacles: dict[str, str]) -> None:
        """Tell which layers stay dense, and that time stays."""
        slower = ", and longer to choose the inputs" if self.settings.sparse.inputs else ""
        if obstacles:
            reasons = "; ".join(f"{name} ({reason})" for name, reason in obstacles.items())
            self.note(f"{len(obstacles)} layers stay dense: {reasons}")
        self.note(
            f"{self.settings.sparse.text}: processors take the same time for zeros{slower}; a compressed "
            "file is smaller, and GPUs with sparse tensor cores can be faster at 2 of 4"
        )

    @contextmanager
    def while_trained(self, network: nn.Module, name: str, sparse_names: Sequence[str]) -> Iterator[None]:
        """Keep zeros of a network and, for `qat`, let it compute with rounded numbers."""
        with zeros_kept(network, sparse_names):
            if name != QAT:
                yield
                return
            names = quantised_layers(network)
            with fake_quantised(network, names, self.settings.weight_bits) as ranges:
                yield
            kept_ranges(self.ranges_path, names, ranges)

    @property
    def ranges_path(self) -> Path:
        """The file of the ranges that the step `qat` trained."""
        return self.folder / QAT / "ranges.jsonl"

    def input_ranges(self, network: nn.Module) -> tuple[InputRange, ...]:
        """Return the ranges that a network was trained with; none without the step `qat`."""
        if QAT not in self.settings.steps or not self.ranges_path.exists():
            return ()
        return kept_ranges(self.ranges_path, quantised_layers(network), {})

    def measure_latency(
        self,
        before: nn.Module,
        network: nn.Module,
        decided: DecidedChanges,
        measure: MeasureModules | None,
    ) -> None:
        """Measure the latency of a network that is smaller than was planned, if it was planned by latency."""
        if decided.cost == "latency_ms":
            assert measure is not None
            pair = {"before": before, "after": network}
            programs = {name: TimedModule(copy.deepcopy(own).cpu(), self.shape) for name, own in pair.items()}
            self.latency_ms = ScoreFile(self.folder / LATENCY_FILE).value(
                "the trained network", lambda: latency_after(programs, decided.before, measure)
            )

    def add_control(self, length: int) -> None:
        """Fine-tune the uncompressed network for as long, to compare."""
        control = copy.deepcopy(self.original)
        self.training(control, CONTROL, length)
        latency_ms, self.latency_ms = self.latency_ms, self.results[0].latency_ms
        self.add_result(CONTROL, control)
        self.latency_ms = latency_ms

    # -- what a network is worth -----------------------------------------------------------------------

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        return split_batches(self.data, split, self.resolution, self.device)

    def images(self, split: str, limit: int) -> Iterator[Tensor]:
        return split_images(self.data, split, self.resolution, self.device, limit)

    def add_result(self, name: str, network: nn.Module) -> None:
        value = score(network, self.batches("validation"), self.task)
        cost = module_cost(network, self.shape)
        self.results.append(
            StepResult(
                name,
                value,
                cost.macs,
                cost.parameters,
                zero_share(network),
                self.latency_ms,
                nonzero_macs(network, self.shape),
            )
        )
        metric = self.task.metric
        self.note(f"{name}: validation {metric.title} {metric.show(value)}, {cost.macs / 1e6:.4g} M MACs")

    def draw(self) -> None:
        """Draw the metric of each step against its cost."""
        metric = self.task.metric
        has_latency = all(result.latency_ms is not None for result in self.results)
        divisor, unit = UNITS["latency_ms" if has_latency else "macs"]
        points = {
            result.name: StepPoint(
                result.name,
                (result.latency_ms if has_latency and result.latency_ms else result.macs) / divisor,
                metric.scale * result.value,
            )
            for result in self.results
        }
        control = points.pop(CONTROL, None)
        controls = [] if control is None else [dataclasses.replace(control, name="uncompressed, fine-tuned")]
        figure = steps_figure(
            list(points.values()),
            controls,
            title="each step of the compression",
            cost=f"latency [{unit}]" if has_latency else unit,
            value=f"validation {metric.label}",
        )
        write_atomic(self.folder / "steps.png", partial(save_png, figure))
