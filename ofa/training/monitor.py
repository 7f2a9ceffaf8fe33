"""Progress bar and TensorBoard of a training run."""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ofa.common.accelerator import peak_memory_mb
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.progress import ProgressCallback
from ofa.data.settings import DataInfo
from ofa.training.gradient_step import StepReport

Batch = tuple[Tensor, Tensor]
NUM_SHOWN = 32
SHOWN_SIDE = 96
"""Images on a sheet are enlarged by a whole factor up to this side in pixels."""


@dataclass(frozen=True)
class StepInfo:
    """Information on a step that is available before its report.

    Attributes:
        number: number of steps of the run, including this one.
        epoch_text: text with phase and epoch, for the progress bar.
        lr: learning rate.
        resolution: side of the step's images in pixels.
        macs: MACs of the step's sub-networks; None if a single network is trained.
        images: number of images in the batch.
        data_wait_s: seconds spent waiting for the batch.
    """

    number: int
    epoch_text: str
    lr: float
    resolution: int
    macs: NDArray[np.float64] | None
    images: int
    data_wait_s: float


class TrainingMonitor:
    """Collects the numbers of single steps and reports their means every `interval` steps."""

    def __init__(
        self,
        folder: Path | None,
        first_step: int,
        mac_range: NDArray[np.float64] | None,
        device: torch.device,
        progress: ProgressCallback,
        interval: int = 10,
        metric: Metric = DEFAULT_METRIC,
        data: DataInfo | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the event file.

        Args:
            folder: folder of TensorBoard events; None for none.
            first_step: first step of this start; later events of an earlier start are replaced.
            mac_range: MACs of the smallest and the largest network; None if a single network is trained.
            device: device whose memory is reported.
            progress: called at the end of each interval.
            interval: number of steps per report.
            metric: metric of the validated sub-networks.
            data: how images are normalised, for a sheet of the first batch; None for no sheet.
            configuration: plain values that are written as text, if any.
        """
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1) if folder else None
        self._device, self._progress, self._interval = device, progress, interval
        self._log_macs = None if mac_range is None else np.log(mac_range)
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._batch_scores: dict[str, list[float]] = defaultdict(list)
        self._norms: list[float] = []
        self._macs: list[NDArray[np.float64]] = []
        self._skipped = 0
        self._images, self._data_wait_s, self._since = 0, 0.0, time.perf_counter()
        self._metric, self._scores, self._data = metric, "", data
        if self._writer is not None and configuration:
            # Indented lines are shown as code in TensorBoard's Markdown.
            text = "\n".join(f"    {line}" for line in json.dumps(configuration, indent=2).splitlines())
            self._writer.add_text("configuration", text, first_step)

    def begin_phase(self, step: int, number: int, name: str) -> None:
        """Mark the start of a phase after `step` steps: its number from 1 as a curve, its name as text."""
        self._scalar("train/phase", number, step)
        if self._writer is not None:
            self._writer.add_text("phases", f"{name} begins after step {step}", step)

    def showing(self, batches: Iterable[Batch], step: int) -> Iterator[Batch]:
        """Yield the batches; write images of this start's first batch as they are trained on."""
        for images, targets in batches:
            if self._writer is not None and self._data is not None:
                self._writer.add_image("training_images", image_grid(images[:NUM_SHOWN], self._data), step)
                self._data = None
            yield images, targets

    def note(self, info: StepInfo, report: StepReport, work_done: int, total_work: int) -> None:
        """Record one step; at the end of an interval report means, rates and time left.

        Losses, and scores of the batches, are grouped by the third of the MAC range (log scale) that contains
        their network.

        Args:
            info: information on the step.
            report: report of the step.
            work_done: work of the run so far.
            total_work: work of the whole run.
        """
        self._skipped += report.skipped
        if not report.skipped:
            for name, loss in zip(self._size_names(info), report.losses, strict=True):
                self._losses[name].append(loss)
            for name, score in zip(self._size_names(info), report.scores, strict=False):
                self._batch_scores[name].append(self._metric.scale * score)
            self._norms.append(report.gradient_norm)
        if info.macs is not None:
            self._macs.append(info.macs)
        self._images += info.images
        self._data_wait_s += info.data_wait_s
        if info.number % self._interval == 0 or work_done == total_work:
            self._show(info, work_done, total_work)

    def _size_names(self, info: StepInfo) -> list[str]:
        """Return the name under which the losses of each network of a step are shown."""
        if info.macs is None or self._log_macs is None:
            return ["training"]
        low, high = self._log_macs
        thirds = 3 * (np.log(info.macs) - low) / max(high - low, 1e-12)
        return [("small", "middle", "large")[third] for third in np.clip(thirds, 0, 2).astype(int)]

    def _show(self, info: StepInfo, work_done: int, total_work: int) -> None:
        step = info.number
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        rate, share = self._images / elapsed, self._data_wait_s / elapsed
        for name, values in self._losses.items():
            self._scalar(f"loss/{name}", sum(values) / len(values), step)
        for name, values in self._batch_scores.items():
            self._scalar(f"training_{self._metric.name}/{name}", sum(values) / len(values), step)
        if self._norms:
            self._scalar("train/gradient_norm", sum(self._norms) / len(self._norms), step)
        self._scalar("train/skipped_steps", self._skipped, step)
        self._scalar("train/learning_rate", info.lr, step)
        self._scalar("train/resolution", info.resolution, step)
        self._scalar("train/images_per_second", rate, step)
        self._scalar("train/data_wait_share", share, step)
        self._scalar("train/peak_memory_mb", peak_memory_mb(self._device), step)
        all_losses = [value for values in self._losses.values() for value in values]
        loss = f"loss {sum(all_losses) / len(all_losses):.3f}" if all_losses else "all steps skipped"
        self._progress(work_done, total_work, f"{info.epoch_text} {loss} {rate:.0f} img/s {self._scores}")
        self._losses.clear()
        self._batch_scores.clear()
        self._norms.clear()
        self._images, self._data_wait_s, self._since = 0, 0.0, time.perf_counter()

    def validated(self, step: int, scores: Mapping[str, float], losses: Mapping[str, float]) -> None:
        """Write metric and loss of named sub-networks on validation images, and the sizes sampled since.

        The time since the previous step does not count as training.
        """
        shown_scores = {name: self._metric.scale * value for name, value in scores.items()}
        for name, value in shown_scores.items():
            self._scalar(f"{self._metric.name}/{name}", value, step)
        for name, loss in losses.items():
            self._scalar(f"validation_loss/{name}", loss, step)
        if self._writer is not None and self._macs:
            self._writer.add_histogram("sampling/macs_m", np.concatenate(self._macs) / 1e6, step)
        self._macs.clear()
        self._scores = " ".join(
            f"{name} {value:.1f}" for name, value in shown_scores.items() if name != "random"
        )
        self._since = time.perf_counter()
        self._images, self._data_wait_s = 0, 0.0

    def close(self) -> None:
        """Flush and close the event file; write errors have been raised before."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)


def image_grid(images: Tensor, data: DataInfo) -> Tensor:
    """Return a sheet (channels, h, w), values 0..1, of images (n, channels, h, w) that `data` normalised."""
    from torchvision.utils import make_grid  # takes two seconds; many processes need none of it

    mean, std = (
        torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (data.mean, data.std)
    )
    pixels = (images * std + mean).clamp(0, 1)
    enlarged = nn.functional.interpolate(pixels, scale_factor=max(1, SHOWN_SIDE // pixels.shape[-1]))
    sheet: Tensor = make_grid(enlarged, nrow=8).cpu()
    return sheet
