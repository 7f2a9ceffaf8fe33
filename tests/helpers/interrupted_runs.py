"""Runs of every strategy, interrupted at random moments and continued; a script, see test_interruption.

Children are forked, because importing PyTorch takes longer than such a run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from training_run import MODEL_PHASES, MODELS, STRATEGIES, arm, make_trainer, model_supernet

from ofa.common.errors import StoppedError
from ofa.common.tensors import load_tensors
from ofa.graph.supernet import GraphSupernet
from ofa.graph.supernet_file import load_graph_supernet, save_graph_supernet
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.phases import Phase
from ofa.training.trainer import Trainer

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


def check(name: str, phases: Sequence[Phase], model: str, folder: Path, rng: np.random.Generator) -> None:
    """Interrupt one run at random moments, one after the other; print a line for each.

    Args:
        name: name of the run in the lines.
        phases: its phases.
        model: name of a user's model; empty for a space.
        folder: folder of its files.
        rng: source of the moments.
    """
    path = folder / "part"

    def trainer_in(path: Path) -> Trainer:
        return make_trainer(path, phases=phases, model=model)

    assert in_child(lambda: trainer_in(folder / "whole").train()) == 0
    steps, expected = weights(folder / "whole")
    # At least two steps apart: a request to stop is obeyed, and saved, a step later.
    drawn = np.sort(rng.choice(steps - 1 - KILLS_PER_STRATEGY, KILLS_PER_STRATEGY, replace=False))
    first = int(rng.integers(2))
    for number, moment in enumerate((1 + drawn + np.arange(KILLS_PER_STRATEGY)).tolist()):
        how = ("step", "term")[(first + number) % 2]

        def train_and_die(how: str = how, moment: int = moment) -> None:
            trainer = trainer_in(path)
            arm(trainer, **{how: moment})
            trainer.train()

        status = in_child(train_and_die)
        assert status == {"step": -signal.SIGKILL, "term": 128 + signal.SIGTERM}[how], status
        if how == "term":
            # The request is seen by the step that follows.
            assert weights(path)[0] == moment + 1
        print(f"{name} {how} {moment} of {steps}", flush=True)
    assert in_child(lambda: trainer_in(path).train()) == 0
    ended, found = weights(path)
    equal = ended == steps and all(torch.equal(found[key], expected[key]) for key in expected)
    print(f"{name}: {'equal' if equal else 'DIFFERENT'}", flush=True)


def main(folder: Path) -> None:
    """Check all strategies, and users' models."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for strategy, phases in STRATEGIES.items():
        check(strategy, phases, "", folder / strategy, rng)
    for model in MODELS:
        # Converted once, in a process of its own: its threads would not be there in forked ones.
        path = folder / f"{model}.pt"
        assert in_child(partial(convert, model, path)) == 0
        with patch("training_run.model_supernet", partial(converted, path)):
            check(model, MODEL_PHASES, model, folder / model, rng)


def convert(model: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_graph_supernet(path, model_supernet(model))


def converted(path: Path, model: str) -> GraphSupernet:
    return load_graph_supernet(path, MODELS[model]().eval())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
