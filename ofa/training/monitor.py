"""What a person sees of a training run: progress bar and TensorBoard."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ofa.progress import ProgressCallback
from ofa.training.settings import Phase


class TrainingMonitor:
    """Collects the numbers of single steps and reports their means every `interval` steps."""

    def __init__(
        self, folder: Path | None, first_step: int, progress: ProgressCallback, interval: int = 10
    ) -> None:
        """Write TensorBoard events to `folder` (None: none), replacing those of steps after `first_step`."""
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1) if folder else None
        self._progress, self._interval = progress, interval
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()
        self.top1: dict[str, float] = {}

    def add(self, losses: Mapping[str, float], images: int, waited_s: float) -> None:
        """Note one step: loss per size class of sub-network, images, seconds waited for data."""
        for name, value in losses.items():
            self._sums[name].append(value)
        self._images += images
        self._waited += waited_s

    def report(
        self, step: int, phase: Phase, epoch: int, done: int, total: int, lr: float, resolution: int
    ) -> None:
        """Report if `step` closes an interval: means since the last report, rates, time left."""
        if step % self._interval:
            return
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        rate, share = self._images / elapsed, self._waited / elapsed
        for name, values in self._sums.items():
            self._scalar(f"loss/{name}", sum(values) / len(values), step)
        self._scalar("train/learning_rate", lr, step)
        self._scalar("train/resolution", resolution, step)
        self._scalar("train/images_per_second", rate, step)
        self._scalar("train/data_wait_share", share, step)
        every = [value for values in self._sums.values() for value in values]
        loss = sum(every) / max(len(every), 1)
        top1 = " ".join(f"{name} {100 * value:.1f}" for name, value in self.top1.items())
        text = f"{phase.name} epoch {epoch + 1}/{phase.epochs} loss {loss:.3f} {rate:.0f} img/s {top1}"
        self._progress(done, total, text)
        self._sums.clear()
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()

    def validated(self, step: int, top1: Mapping[str, float]) -> None:
        """Write the top-1 (0..1) of the named sub-networks; the time it took is not counted as training."""
        for name, value in top1.items():
            self._scalar(f"top1/{name}", 100 * value, step)
        self.top1 = {name: value for name, value in top1.items() if name != "random"}
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
