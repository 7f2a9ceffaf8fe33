"""What a person sees of a training run: progress bar and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from ofa.common.accelerator import peak_memory_mb
from ofa.common.metric import TOP1, Metric
from ofa.common.progress import ProgressCallback
from ofa.training.gradient_step import StepReport


@dataclass(frozen=True)
class StepInfo:
    """What is known of a step before its report is read.

    Attributes:
        number: of steps of the run, with this one.
        epoch_text: phase and epoch, for the progress.
        lr: learning rate.
        resolution: of its images, in pixels.
        macs: MACs of its sub-networks; None if a single network is trained.
        images: number in its batch.
        data_wait_s: seconds that it waited for them.
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
        metric: Metric = TOP1,
    ) -> None:
        """Start to write.

        Args:
            folder: of TensorBoard events; None for none.
            first_step: events of later steps, of an earlier start, are replaced.
            mac_range: MACs of the smallest and the largest network; None if a single network is trained.
            device: whose memory is reported.
            progress: told at the end of each interval.
            interval: number of steps.
            metric: that sub-networks are validated by.
        """
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1) if folder else None
        self._device, self._progress, self._interval = device, progress, interval
        self._log_macs = None if mac_range is None else np.log(mac_range)
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._norms: list[float] = []
        self._macs: list[NDArray[np.float64]] = []
        self._skipped = 0
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()
        self._metric, self._scores = metric, ""

    def describe(self, step: int, values: Mapping[str, Any]) -> None:
        """Write plain values, such as a configuration, as text."""
        if self._writer is not None:
            # Indented lines are code in TensorBoard's Markdown.
            text = "\n".join(f"    {line}" for line in json.dumps(values, indent=2).splitlines())
            self._writer.add_text("configuration", text, step)

    def note(self, facts: StepInfo, report: StepReport, done: int, total: int) -> None:
        """Note one step; at the end of an interval show means since the last one, rates and time left.

        Losses are kept by the third of the MAC range (log scale) that their network is in.

        Args:
            facts: of the step.
            report: what it did.
            done: work of the run so far.
            total: work of the whole run.
        """
        self._skipped += report.skipped
        if not report.skipped:
            for name, loss in zip(self._size_names(facts), report.losses, strict=True):
                self._losses[name].append(loss)
            self._norms.append(report.gradient_norm)
        if facts.macs is not None:
            self._macs.append(facts.macs)
        self._images += facts.images
        self._waited += facts.data_wait_s
        if facts.number % self._interval == 0 or done == total:
            self._show(facts, done, total)

    def _size_names(self, facts: StepInfo) -> list[str]:
        """Return for each network of a step the name that its losses are shown under."""
        if facts.macs is None or self._log_macs is None:
            return ["training"]
        low, high = self._log_macs
        thirds = 3 * (np.log(facts.macs) - low) / max(high - low, 1e-12)
        return [("small", "middle", "large")[third] for third in np.clip(thirds, 0, 2).astype(int)]

    def _show(self, facts: StepInfo, done: int, total: int) -> None:
        step = facts.number
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        rate, share = self._images / elapsed, self._waited / elapsed
        for name, values in self._losses.items():
            self._scalar(f"loss/{name}", sum(values) / len(values), step)
        if self._norms:
            self._scalar("train/gradient_norm", sum(self._norms) / len(self._norms), step)
        self._scalar("train/skipped_steps", self._skipped, step)
        self._scalar("train/learning_rate", facts.lr, step)
        self._scalar("train/resolution", facts.resolution, step)
        self._scalar("train/images_per_second", rate, step)
        self._scalar("train/data_wait_share", share, step)
        self._scalar("train/peak_memory_mb", peak_memory_mb(self._device), step)
        all_losses = [value for values in self._losses.values() for value in values]
        loss = f"loss {sum(all_losses) / len(all_losses):.3f}" if all_losses else "all steps skipped"
        self._progress(done, total, f"{facts.epoch_text} {loss} {rate:.0f} img/s {self._scores}")
        self._losses.clear()
        self._norms.clear()
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """Write the metric of the named sub-networks, and which sizes were drawn since the last time.

        The time it took is not counted as training.
        """
        shown_scores = {name: self._metric.scale * value for name, value in scores.items()}
        for name, value in shown_scores.items():
            self._scalar(f"{self._metric.name}/{name}", value, step)
        if self._writer is not None and self._macs:
            self._writer.add_histogram("sampling/macs_m", np.concatenate(self._macs) / 1e6, step)
        self._macs.clear()
        self._scores = " ".join(
            f"{name} {value:.1f}" for name, value in shown_scores.items() if name != "random"
        )
        self._since = time.perf_counter()
        self._images, self._waited = 0, 0.0

    def close(self) -> None:
        """Flush and close the event file; that it could not be written has been raised before."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)
