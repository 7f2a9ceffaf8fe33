"""Checkpoints of a training run: written atomically, checked on load; the newest are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.distributed import World
from ofa.common.errors import UserError
from ofa.common.tensors import content_digest, has_nan, load_tensors, save_tensors, state_bytes
from ofa.common.unfinished import remove_leftovers

_STEP_FILE = re.compile(r"step_(\d+)\.pt")


@contextmanager
def misfits_named() -> Iterator[None]:
    """Turn the errors of values that do not fit a training into the user's error.

    Raises:
        UserError: naming what does not fit.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"The checkpoint does not fit this training: {reason}. Use an intact copy, or remove the run's "
            "directory to start the training anew."
        ) from error


NUM_CHECKPOINTS = 2


def checkpoints_bytes(
    network: nn.Module, num_checkpoints: int = NUM_CHECKPOINTS, num_more_states: int = 0
) -> int:
    """Return about the size of the checkpoints of a training in bytes, at most: one more than are kept.

    Args:
        network: network that is trained; the optimiser has a momentum for each of its parameters.
        num_checkpoints: number of checkpoints that are kept.
        num_more_states: number of further copies of its state in each, e.g. the average.
    """
    state, momentum = state_bytes(network), sum(p.numel() * p.element_size() for p in network.parameters())
    return (num_checkpoints + 1) * ((1 + num_more_states) * state + momentum)


class TrainingCheckpoints:
    """The latest checkpoints of a run, `step_<n>.pt` in one folder."""

    def __init__(self, folder: Path, max_checkpoints: int = NUM_CHECKPOINTS) -> None:
        """Use `folder` and keep the newest `max_checkpoints` files."""
        self._folder, self._max_checkpoints = folder, max_checkpoints

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        matches = (_STEP_FILE.fullmatch(file.name) for file in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, values: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`, then delete the oldest ones beyond `max_checkpoints`."""
        save_tensors(self._path(step), {**values, "digest": content_digest(values)})
        self._remove_old()

    def _remove_old(self) -> None:
        for old_step in self.steps()[: -self._max_checkpoints]:
            self._path(old_step).unlink(missing_ok=True)

    def load_latest(
        self, check: Callable[[Mapping[str, Any], str], None]
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest readable checkpoint (None without one) and the names of damaged newer files.

        Args:
            check: takes values and a name for error texts, and raises UserError if the values belong to
                another training.

        Raises:
            UserError: raised by `check`, or if all files are damaged.
        """
        remove_leftovers(self._folder)
        damaged_paths = []
        for step in reversed(self.steps()):
            try:
                values = load_tensors(self._path(step), "checkpoint")
            except UserError:
                values = {}
            is_whole = (
                values.pop("digest", None) == content_digest(values) and values.get("step", step) == step
            )
            # Nothing can go on from weights of NaN, even if they were written like that.
            if not is_whole or has_nan(values):
                damaged_paths.append(str(self._path(step)))
                continue
            check(values, f"checkpoint {self._path(step)}")
            self._remove_old()  # A process that was killed after saving may not have come to it.
            return values, damaged_paths
        if damaged_paths:
            raise UserError(
                f"No checkpoint of {self._folder} can be read: {', '.join(damaged_paths)}. "
                "Remove the run's directory to start the training anew."
            )
        return None, []

    def check_equal_starts(self, step: int, world: World) -> None:
        """Raise unless all processes resume at the same step; only the first process writes checkpoints."""
        steps_by_rank = world.gather({str(world.rank): float(step)})
        if len(set(steps_by_rank.values())) > 1:
            steps = ", ".join(f"{step:.0f} of process {rank}" for rank, step in steps_by_rank.items())
            raise UserError(
                f"The processes would go on from different steps: {steps}. All need the same checkpoints in "
                f"{self._folder}; with several machines runs_dir has to be on storage that they share."
            )

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:08d}.pt"
