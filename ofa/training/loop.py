"""The loop over the steps of an epoch: deferred reports, checkpoints, and requests to stop."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ofa.common.errors import StoppedError, UserError
from ofa.training.gradient_step import NonFiniteError, PendingReport, StepReport
from ofa.training.monitor import StepInfo
from ofa.training.stop import StopRequest

Batch = tuple[Tensor, Tensor]

CHECKPOINT_EVERY_S = 600.0
"""Seconds after which a training is saved even if no number of steps is due."""

REMEDY = (
    "The last checkpoint is intact: lower the learning rates of the phases (phases.*.lr) and use a new "
    "run_name, or skip such steps with training.on_non_finite=skip."
)


class ReportReader:
    """Holds the report of the previous step and reads it while the next step runs."""

    def __init__(
        self,
        read: Callable[[PendingReport], StepReport],
        note: Callable[[StepInfo, StepReport], None],
        remedy: str,
    ) -> None:
        """Start without a pending report.

        Args:
            read: returns the report of a step, or raises NonFiniteError.
            note: takes the information on a step and its report.
            remedy: advice for the user if a step was not finite.
        """
        self._read, self._note, self._remedy = read, note, remedy
        self._last: tuple[StepInfo, PendingReport] | None = None
        self._stop_read_ahead = False

    def add(self, info: StepInfo, pending: PendingReport) -> bool:
        """Read the report of the previous step and take this one; see `flush`."""
        stop = self.flush()
        self._last = info, pending
        return stop

    def read_ahead(self) -> None:
        """Read the pending report; the next call of `add` or `flush` says whether the training has to stop.

        Other processes that do not read ahead learn it in that call as well.

        Raises:
            UserError: as `flush`.
        """
        self._stop_read_ahead = self.flush()

    def flush(self) -> bool:
        """Read the pending report, if any, and return whether the training has to stop.

        Raises:
            UserError: if the step was not finite and may not be skipped.
        """
        stop_read_ahead, self._stop_read_ahead = self._stop_read_ahead, False
        if self._last is None:
            return stop_read_ahead
        (info, pending), self._last = self._last, None
        try:
            report = self._read(pending)
        except NonFiniteError as error:
            raise UserError(
                f"The training has diverged at step {info.number - 1}: {error}. {self._remedy}"
            ) from error
        self._note(info, report)
        return report.stop or stop_read_ahead


class StepLoop(ABC):
    """A training that can resume at any step; a subclass defines the step and the saved state."""

    def __init__(self, folder: Path | None, checkpoint_every_steps: int) -> None:
        """Save into `folder` (None: nothing is saved) every `checkpoint_every_steps` steps.

        It is saved after `CHECKPOINT_EVERY_S` seconds as well, and before an error between two steps ends the
        training.
        """
        self._save_folder, self._checkpoint_every_steps = folder, checkpoint_every_steps
        self._saved_s = time.monotonic()
        self._stop = StopRequest()

    @abstractmethod
    def _train_batch(self, batch: Batch, data_wait_s: float) -> tuple[StepInfo, PendingReport]:
        """Train one step and count it; the loop waited `data_wait_s` seconds for the batch."""

    @abstractmethod
    def _save(self) -> None:
        """Save the state after the last step."""

    def _checkpoint(self) -> None:
        """Save the state after the last step, and begin to count the time to the next checkpoint."""
        self._save()
        self._saved_s = time.monotonic()

    @abstractmethod
    def _phase_ended(self) -> bool:
        """Return whether the last step was the last of its phase; the subclass saves after that."""

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Handle stop signals; add the folder to errors about files that cannot be written."""
        try:
            with self._stop.listening():
                yield
        except OSError as error:
            raise UserError(
                f"Could not write to {self._save_folder}: {error}. Check the permissions and free space; the "
                "last checkpoint is intact, run the same command to go on."
            ) from error

    def _run_batches(
        self,
        batches: Iterable[Batch],
        reader: ReportReader,
        spend: Callable[[float, float], None] = lambda seconds, data_wait_s: None,
    ) -> None:
        """Train on all `batches`.

        Args:
            batches: batches of one epoch.
            reader: reader of the steps' reports.
            spend: takes the seconds of each step, and the seconds of these spent waiting for images.

        Raises:
            UserError: if a step was not finite and may not be skipped.
            StoppedError: after a signal, with the last step saved.
        """
        step, start_s = 0, time.perf_counter()
        for batch in self._saved_before_errors(batches, reader):
            data_wait_s = time.perf_counter() - start_s
            info, pending = self._train_batch(batch, data_wait_s)
            # The report of the previous step; the current step may still be running on the device.
            stop = reader.add(info, pending)
            step = info.number
            is_due = step % self._checkpoint_every_steps == 0
            if stop or is_due or pending.ready is None:
                stop = reader.flush() or stop
            spend(time.perf_counter() - start_s, data_wait_s)
            if stop:
                self._save_and_stop(step)
            is_overdue = time.monotonic() - self._saved_s >= CHECKPOINT_EVERY_S
            if is_overdue:
                reader.read_ahead()
            if (is_due or is_overdue) and not self._phase_ended():
                self._checkpoint()
            start_s = time.perf_counter()
        stop = reader.flush()
        spend(time.perf_counter() - start_s, 0.0)
        if stop:
            self._save_and_stop(step)

    def _saved_before_errors(self, batches: Iterable[Batch], reader: ReportReader) -> Iterator[Batch]:
        """Yield the batches; what ends them, e.g. an image, does not cost the steps since the checkpoint."""
        num_batches = 0
        try:
            for batch in batches:
                yield batch
                num_batches += 1
        except Exception:
            reader.flush()
            if num_batches:
                self._checkpoint()
            raise

    @contextmanager
    def _saved_on_error(self) -> Iterator[None]:
        """Save the state after the last step before an error of what is done between steps goes on."""
        try:
            yield
        except Exception:
            self._checkpoint()
            raise

    def _save_and_stop(self, step: int) -> None:
        self._checkpoint()
        hint = ""
        if self._save_folder is not None:
            hint = f", which is saved in {self._save_folder}; run the same command to go on"
        raise StoppedError(
            f"Stopped by {self._stop.sender} after step {step}{hint}.", self._stop.signal_number
        )
