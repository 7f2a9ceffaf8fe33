"""Time spent in a training, and the time that the whole will take."""

from __future__ import annotations

from collections.abc import Mapping

from ofa.common.progress import Note, duration_text
from ofa.data.base import ImageData
from ofa.training.phases import FORWARD_COST
from ofa.training.schedule import Position, Schedule
from ofa.training.settings import TrainSettings

NUM_TIMED_STEPS = 10
"""Steps of a start after which the time of the whole is said; the first one, which warms up, is not timed."""

MIN_SAID_S = 60.0
NUM_VALIDATED = 4


class TimeSpent:
    """Seconds in the steps of each phase, and how many of them passed while waiting for images.

    Attributes:
        seconds: seconds by phase, over all starts.
        waited: seconds of these spent waiting for images.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds: dict[str, float] = {}
        self.waited: dict[str, float] = {}

    def add(self, phase: str, seconds: float, data_wait_s: float) -> None:
        """Add the seconds of a step."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.waited[phase] = self.waited.get(phase, 0.0) + data_wait_s

    def load(self, values: Mapping[str, Mapping[str, float]]) -> None:
        """Take the numbers of a checkpoint; older ones have none."""
        self.seconds, self.waited = dict(values.get("seconds", {})), dict(values.get("waited", {}))

    @property
    def data_wait_share(self) -> float:
        """Share of the time (0..1) spent waiting for images."""
        return sum(self.waited.values()) / max(sum(self.seconds.values()), 1e-9)


class Pace:
    """Says once, after some steps, how long the training will take and what shortens it."""

    def __init__(
        self, schedule: Schedule, settings: TrainSettings, data: ImageData, first: Position, note: Note
    ) -> None:
        """Begin at the position of this start.

        Args:
            schedule: phases of the run.
            settings: settings of the run.
            data: images of the run; their numbers decide how long a validation takes.
            first: position at which this start begins.
            note: takes the line for the user.
        """
        self._schedule, self._settings, self._note = schedule, settings, note
        # Images that each validated network sees.
        self._num_images = min(settings.validation_images, data.size("validation"))
        self._num_images += min(settings.calibration_images, data.size("train"))
        self._first_step, self._last_step = first.step, first.step
        self._seconds, self._work, self._is_said = 0.0, 0.0, False

    def add(self, position: Position, seconds: float) -> None:
        """Add the seconds of a step that ended at `position`; say the time when enough steps are done."""
        num_steps, self._last_step = position.step - self._last_step, position.step
        num_done = position.step - self._first_step
        if self._is_said or num_done <= 1:
            return
        self._seconds += seconds
        self._work += num_steps * self._schedule.phases[position.phase].step_cost
        if num_done >= NUM_TIMED_STEPS:
            self._is_said = True
            self._say(position)

    def _say(self, position: Position) -> None:
        whole_s = self._seconds / self._work * (self._work + self._remaining_work(position))
        if whole_s < MIN_SAID_S:
            return
        num_steps = self._schedule.total_steps - self._first_step
        most = "" if self._settings.early_stopping is None else "at most "
        text = f"{most}about {duration_text(whole_s)} for {num_steps:,} steps"
        if self._first_step == 0:
            text += f"; shorter: training.length={self._settings.length / 2:g}"
        self._note(text)

    def _remaining_work(self, position: Position) -> float:
        """Return the cost of the remaining steps and validations, in steps of one sub-network."""
        work_done, total_work = self._schedule.work_done(position)
        validation = NUM_VALIDATED * FORWARD_COST * self._num_images / self._settings.batch_size
        # The end of the run has one more.
        return total_work - work_done + validation * (1 + self._schedule.num_validations(position))
