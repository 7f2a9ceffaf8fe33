"""`Metric`: a number that networks are compared by, and its direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ofa.common.display import short_repr


@dataclass(frozen=True)
class Metric:
    """A number per network; files name it, so that values of different metrics never mix.

    Attributes:
        name: identifier in files and settings.
        title: text in tables and figures.
        higher_is_better: whether larger values are better.
        is_fraction: whether values lie in 0..1 and are shown in percent.
        counts_images: whether a fraction is a share of the images, so that their number gives its error.
    """

    name: str
    title: str
    higher_is_better: bool = True
    is_fraction: bool = True
    counts_images: bool = True

    @property
    def unit(self) -> str:
        """Unit of displayed values; empty without one."""
        return "%" if self.is_fraction else ""

    @property
    def scale(self) -> float:
        """Factor from stored to displayed values."""
        return 100.0 if self.is_fraction else 1.0

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: `sign * value` is to be maximised."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def digits(self) -> int:
        """Decimals of displayed values that have an error."""
        return 1 if self.is_fraction else 3

    @property
    def label(self) -> str:
        """Title and unit, for the axis of a figure."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title and unit, for the heading of a column."""
        return f"{self.title} {self.unit}".rstrip()

    def show(self, value: float) -> str:
        """Return `value` as text with its unit."""
        return f"{self.scale * value:.2f} %" if self.is_fraction else number_text(value)

    def standard_error(self, value: float, num_images: int) -> float | None:
        """Return the standard error of a share of `num_images` images; None for other metrics.

        A share of 0 or 1 of a few images is not certain either: it counts as if one image more were right,
        and one more wrong.
        """
        if not (self.is_fraction and self.counts_images) or num_images < 1:
            return None
        share = (num_images * value + 1) / (num_images + 2)
        return math.sqrt(share * (1 - share) / num_images)

    def gain(self, value: float, reference: float) -> float:
        """Return how much better `value` is than `reference`: in points, or in the unit of the metric."""
        return self.scale * self.sign * (value - reference)

    def basis(self, num_images: int) -> str:
        """Return what a shown value was measured on, e.g. "standard error of 400 images"."""
        images = f"{num_images} images"
        return images if self.standard_error(0.5, num_images) is None else f"standard error of {images}"

    def show_with_error(self, value: float, num_images: int) -> str:
        """Return `value` with its standard error and unit, e.g. "81.2 ± 1.6 %"."""
        error = self.standard_error(value, num_images)
        return self.show(value) if error is None else self.show_range(value, error)

    def show_range(self, value: float, deviation: float) -> str:
        """Return `value` and its standard deviation as text with the unit, e.g. "55.7 ± 4.2 %"."""
        value, deviation = self.scale * value, self.scale * deviation
        return f"{value:.{self.digits}f} ± {deviation:.{self.digits}f} {self.unit}".rstrip()

    def problem(self, value: object) -> str | None:
        """Return why `value` is not a value of this metric; None if it is valid."""
        bounds = (0.0, 1.0) if self.is_fraction else (-math.inf, math.inf)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and bounds[0] <= value <= bounds[1]
        ):
            return None
        expected = "a fraction from 0 to 1" if self.is_fraction else "a finite number"
        return f"{self.name} is {short_repr(value)}; expected {expected}."


TOP1 = Metric("top1", "top-1")
"""Share of images whose most probable class is the label."""

DEFAULT_METRIC = TOP1
"""Metric of files and calls that name none, as those from before there were others."""

TOP5 = Metric("top5", "top-5")
"""Share of images whose label is among the five most probable classes."""

BALANCED_ACCURACY = Metric("balanced_accuracy", "balanced accuracy")
"""Mean over the classes that occur of the share of their images whose most probable class is the label."""

MEAN_IOU = Metric("mean_iou", "mean IoU", counts_images=False)
"""Mean over the classes of the pixels of both divided by the pixels of either, in label and answer."""

PIXEL_ACCURACY = Metric("pixel_accuracy", "pixel accuracy", counts_images=False)
"""Share of labelled pixels whose most probable class is the label."""

MEAN_AVERAGE_PRECISION = Metric("mean_average_precision", "mAP", counts_images=False)
"""Mean over the labels that occur of the area under precision and recall, images ranked by probability."""

MACRO_F1 = Metric("macro_f1", "macro F1", counts_images=False)
"""Mean over the labels that occur of F1, precision and recall in one, at a probability of 0.5."""

R2 = Metric("r2", "R²", is_fraction=False)
"""Mean over the columns of the share of the variance of their numbers that is explained; at most 1."""

MEAN_ABSOLUTE_ERROR = Metric("mean_absolute_error", "MAE", higher_is_better=False, is_fraction=False)
"""Mean over the columns of the mean distance from their numbers, in the unit of these."""

_KNOWN = {
    metric.name: metric
    for metric in (
        *(TOP1, TOP5, BALANCED_ACCURACY, MEAN_IOU, PIXEL_ACCURACY),
        *(MEAN_AVERAGE_PRECISION, MACRO_F1, R2, MEAN_ABSOLUTE_ERROR),
    )
}


def number_text(value: float) -> str:
    """Return a number with two decimals, three digits if it is below 0.1, and none from 1,000 on."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e9 else f"{value:.4g}"
    return f"{value:.2f}" if size >= 0.1 or value == 0 else f"{value:.3g}"


def known_metrics() -> dict[str, Metric]:
    """Return the metrics of this project by name."""
    return dict(_KNOWN)


def metric_named(name: str) -> Metric:
    """Return a known metric; of another name, one that is shown as a plain number."""
    return _KNOWN.get(name) or Metric(name, name, is_fraction=False)


def indistinct(metric: Metric, values: Sequence[float], num_images: int) -> str | None:
    """Return the warning for values that differ by less than the standard error of their images.

    Args:
        metric: metric of the values.
        values: values of networks on the same images.
        num_images: number of these images.

    Returns:
        A sentence without names; None if the values differ by more, or the metric has no standard error.
    """
    if len(values) < 2:
        return None
    error = metric.standard_error(max(values), num_images)
    spread = max(values) - min(values)
    if error is None or spread >= error:
        return None
    return (
        f"differ by {metric.scale * spread:.1f} points, less than the standard error of {num_images} images "
        f"({metric.scale * error:.1f}): these images do not rank them"
    )
