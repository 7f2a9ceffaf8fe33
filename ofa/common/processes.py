"""Starts several processes of one command on this machine, as `torchrun` does."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from ofa.common.machine import num_processors


def run_in_processes(count: int, arguments: Sequence[str]) -> int:
    """Run `python -m ARGUMENTS` in `count` processes that work together, and return their exit status.

    The cores are shared out: each process computes with its part of them, unless OMP_NUM_THREADS says how
    many threads a process has.

    Args:
        count: number of processes, at least 1.
        arguments: a module, and what stands behind it on the command line.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(num_processors() // count, 1)))
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    # What a process has to say it says itself.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main(["--standalone", f"--nproc-per-node={count}", "-m", *arguments])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    sys.stdout.flush()
    return 0
