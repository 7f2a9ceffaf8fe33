"""A network in int8: the choice of layers that stay in floating point, and the measured accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ofa.architecture.layer import LayerSpec
from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue, measured_value
from ofa.common.metric import Metric
from ofa.common.progress import ProgressCallback, silent
from ofa.compression.quantisation.base import Quantise
from ofa.compression.quantisation.calibration import Images, check_calibration, single_images
from ofa.compression.quantisation.graph import QuantisationUnits, operators_of
from ofa.compression.quantisation.sensitivity import FloatingPointLayers, choose_kept_layers, rank_layers
from ofa.evaluation.evaluate import CLASSIFICATION, SubnetEvaluator, score
from ofa.evaluation.task import Task
from ofa.runtimes.base import Files, Logits

KEEP_CHOICES = ("none", "auto")
RANKING_IMAGES = 50


@dataclass(frozen=True)
class Samples:
    """Images for calibrating and evaluating a network of lower precision, at its resolution.

    Attributes:
        calibration: training images, each (1, channels, h, w).
        validation: returns batches of validation images and targets, on the CPU; called once per evaluation.
        num_validation: number of validation images; 0 if it is not known.
        task: task that judges a network.
    """

    calibration: Sequence[Images]
    validation: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    num_validation: int = 0
    task: Task = CLASSIFICATION

    @property
    def metric(self) -> Metric:
        """Metric that networks are judged by."""
        return self.task.metric

    def score(self, outputs_of: Callable[[Tensor], Tensor]) -> float:
        """Return the metric of a network on the validation images."""
        return score(outputs_of, self.validation(), self.task)

    def measured(self, value: float) -> MetricValue:
        """Return a score with what it was measured on."""
        return measured_value(self.metric, value, "validation", self.num_validation, "")


@dataclass(frozen=True)
class MixedPrecisionSettings:
    """The choice of layers that stay in floating point.

    Attributes:
        keep_layers: "none", "auto" (as few as bring the loss to `max_loss`), or positions of layers.
        max_loss: points of the metric on validation images that "auto" may lose.
    """

    keep_layers: str | tuple[int, ...] = "none"
    max_loss: float = 0.5

    def __post_init__(self) -> None:
        """Check the choice and the range."""
        if isinstance(self.keep_layers, str) and self.keep_layers not in KEEP_CHOICES:
            raise UserError(
                f"keep_layers is {self.keep_layers!r}; expected none, auto or a list of positions of layers, "
                "for instance [0, 12]."
            )
        if not 0 <= self.max_loss <= 100:
            raise UserError(f"max_loss is {self.max_loss}; expected points from 0 to 100.")


@dataclass(frozen=True)
class QuantisedNetwork:
    """A quantised network: its files, the parts in floating point, and its measured worth.

    Attributes:
        files: quantised files of the engine.
        kept_units: positions of the layers, or of the operators of a module, in floating point.
        metric: what is measured.
        value: the metric on the validation images, by the engine.
        reference_value: the metric of the fp32 network on the same images.
    """

    files: Files
    kept_units: tuple[int, ...]
    metric: Metric
    value: float
    reference_value: float

    @property
    def loss(self) -> float:
        """Points of the metric lost."""
        return self.metric.gain(self.reference_value, self.value)


def samples_of(evaluator: SubnetEvaluator[nn.Module], resolution: int, calibration_images: int) -> Samples:
    """Return the evaluator's images at `resolution`, with the first training images for calibration."""

    def validation() -> Iterable[tuple[Tensor, Tensor]]:
        return ((images.cpu(), labels.cpu()) for images, labels in evaluator.batches(resolution))

    calibration = single_images(evaluator.training_images(resolution), calibration_images)
    return Samples(calibration, validation, evaluator.num_images, evaluator.task)


def check_kept_layers(specs: Sequence[LayerSpec] | None, settings: MixedPrecisionSettings) -> None:
    """Check that a network has the layers that are to stay in floating point.

    Args:
        specs: layers of the network; None for a module that is not a chain of layers.
        settings: choice of the layers.

    Raises:
        UserError: naming every unknown layer, or the reason why layers cannot be chosen by position.
    """
    if not isinstance(settings.keep_layers, tuple):
        return
    if specs is None:
        raise UserError(
            f"keep_layers is {settings.keep_layers}, but this network is not a chain of layers, so its "
            "layers cannot be identified in every engine's graph. Use keep_layers=auto "
            "or none."
        )
    operators_of(specs, settings.keep_layers)


def quantise_network(
    units: QuantisationUnits,
    quantise: Callable[[Sequence[Images]], Quantise],
    load: Callable[[Files], Logits],
    reference: Logits,
    samples: Samples,
    settings: MixedPrecisionSettings,
    progress: ProgressCallback = silent,
) -> QuantisedNetwork:
    """Quantise a network with the layers of `settings` in floating point, and measure its accuracy.

    Args:
        units: parts that can stay in floating point; see `ofa.compression.quantisation.graph`.
        quantise: takes calibration images; `ofa.compression.quantisation.registry` has one for each engine
            that has int8.
        load: returns a function from images to logits for quantised files.
        reference: the network in fp32.
        samples: calibration and validation images; test images are not used.
        settings: choice of the layers that stay in floating point.
        progress: called per evaluated network.

    Raises:
        UserError: if a layer is unknown, or "auto" cannot reduce the loss to the allowed maximum; the text
            says which loss it reached.
    """
    trial = _Trial(units, quantise, load, reference, samples)
    if settings.keep_layers == "auto":
        choice = _search(trial, units, settings, progress)
        if not choice.reached:
            raise UserError(_cannot(choice, units, settings.max_loss))
        kept_units = choice.layers
    elif isinstance(settings.keep_layers, tuple):
        kept_units = tuple(sorted(set(settings.keep_layers)))
    else:
        kept_units = ()
    files = trial.files(frozenset(kept_units))
    value = trial.value(frozenset(kept_units))
    return QuantisedNetwork(files, kept_units, samples.metric, value, trial.reference_value)


def _search(
    trial: _Trial, units: QuantisationUnits, settings: MixedPrecisionSettings, progress: ProgressCallback
) -> FloatingPointLayers:
    layers = units.positions
    return choose_kept_layers(
        lambda: rank_layers(layers, trial.output_error, progress),
        trial.loss,
        settings.max_loss,
        max_kept=len(layers) // 2,
        progress=progress,
    )


def _cannot(choice: FloatingPointLayers, units: QuantisationUnits, max_loss: float) -> str:
    units_text = (
        f"{units.title}s {', '.join(map(str, choice.layers))}" if choice.layers else f"no {units.title}"
    )
    return (
        f"keep_layers=auto keeps at most half of the {len(units.positions)} {units.title}s in floating point "
        f"and cannot reduce the loss to {max_loss:g} points: the best of {choice.evaluations} networks, with "
        f"{units_text} kept, loses {choice.loss:.2f}. Give a larger max_loss, more calibration images, or "
        "precision=fp32."
    )


class _Trial:
    """Makes and measures quantised networks; caches all values and the files of the last network."""

    def __init__(
        self,
        units: QuantisationUnits,
        quantise: Callable[[Sequence[Images]], Quantise],
        load: Callable[[Files], Logits],
        reference: Logits,
        samples: Samples,
    ) -> None:
        self._units, self._load, self._samples = units, load, samples
        check_calibration(samples.calibration)
        ranking_images = samples.calibration[:RANKING_IMAGES]
        self._quantise, self._quantise_roughly = quantise(samples.calibration), quantise(ranking_images)
        self.reference_value = samples.score(reference)
        self._ranking_images = torch.from_numpy(np.concatenate(ranking_images))
        with torch.inference_mode():
            self._expected = reference(self._ranking_images)
        self._values: dict[frozenset[int], float] = {}
        self._last: tuple[frozenset[int], Files] | None = None

    def files(self, kept_units: frozenset[int]) -> Files:
        """Return the files with the layers `kept_units` in floating point."""
        if self._last is None or self._last[0] != kept_units:
            self._last = (kept_units, self._quantise(self._units.operators(kept_units)))
        return self._last[1]

    def value(self, kept_units: frozenset[int]) -> float:
        """Return the metric on the validation images."""
        if kept_units not in self._values:
            self._values[kept_units] = self._samples.score(self._load(self.files(kept_units)))
        return self._values[kept_units]

    def loss(self, kept_units: frozenset[int]) -> float:
        """Return the points of the metric lost on the validation images."""
        return self._samples.metric.gain(self.reference_value, self.value(kept_units))

    def output_error(self, kept_units: frozenset[int]) -> float:
        """Return the mean squared error of the logits on a few images, which also calibrate the network."""
        files = self._quantise_roughly(self._units.operators(kept_units))
        outputs = self._load(files)(self._ranking_images)
        error = float(((outputs - self._expected) ** 2).mean())
        return error if math.isfinite(error) else math.inf
