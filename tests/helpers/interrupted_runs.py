"""Runs of every strategy, interrupted at random moments and continued; a script, see test_interruption.

Children are forked, because importing PyTorch takes longer than such a run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from training_run import STRATEGIES, arm, make_trainer

from ofa.common.errors import StoppedError
from ofa.common.tensors import load_tensors
from ofa.training.checkpoints import TrainingCheckpoints

KILLS_PER_STRATEGY = 5


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; return its exit status as `os.waitstatus_to_exitcode` does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except StoppedError:
            status = 128 + signal.SIGTERM
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def weights(folder: Path) -> tuple[int, dict[str, Tensor]]:
    """Return the step and the weights of the last checkpoint."""
    step = TrainingCheckpoints(folder / "checkpoints").steps()[-1]
    values = load_tensors(folder / "checkpoints" / f"step_{step:08d}.pt", "checkpoint")
    return step, values["supernet"]


def check(strategy: str, folder: Path, rng: np.random.Generator) -> None:
    """Interrupt one run of a strategy at random moments, one after the other; print a line for each."""
    phases, path = STRATEGIES[strategy], folder / "part"
    assert in_child(lambda: make_trainer(folder / "whole", phases=phases).train()) == 0
    steps, expected = weights(folder / "whole")
    # At least two steps apart: a request to stop is obeyed, and saved, a step later.
    drawn = np.sort(rng.choice(steps - 1 - KILLS_PER_STRATEGY, KILLS_PER_STRATEGY, replace=False))
    first = int(rng.integers(2))
    for number, moment in enumerate((1 + drawn + np.arange(KILLS_PER_STRATEGY)).tolist()):
        how = ("step", "term")[(first + number) % 2]

        def train_and_die(how: str = how, moment: int = moment) -> None:
            trainer = make_trainer(path, phases=phases)
            arm(trainer, **{how: moment})
            trainer.train()

        status = in_child(train_and_die)
        assert status == {"step": -signal.SIGKILL, "term": 128 + signal.SIGTERM}[how], status
        if how == "term":
            # The request is seen by the step that follows.
            assert weights(path)[0] == moment + 1
        print(f"{strategy} {how} {moment} of {steps}", flush=True)
    assert in_child(lambda: make_trainer(path, phases=phases).train()) == 0
    ended, found = weights(path)
    equal = ended == steps and all(torch.equal(found[name], expected[name]) for name in expected)
    print(f"{strategy}: {'equal' if equal else 'DIFFERENT'}", flush=True)


def main(folder: Path) -> None:
    """Check all strategies."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for strategy in STRATEGIES:
        check(strategy, folder / strategy, rng)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
