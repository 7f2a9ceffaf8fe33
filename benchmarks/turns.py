"""Processes that take turns: one works at a time; requests and answers are lines of JSON.

Two packages with the import name `ofa` cannot be loaded in one process, and peak memory is measured per
process.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Request = Mapping[str, Any]


class Worker:
    """A script of this folder that runs as a process and answers requests until it is closed."""

    def __init__(self, script: str, arguments: Sequence[object]) -> None:
        """Start `script` with `arguments`."""
        path = Path(__file__).with_name(script)
        command = [sys.executable, str(path), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request: Request) -> Any:
        """Return the answer to `request`.

        Raises:
            RuntimeError: if the process ended; its error is on the error stream.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process by closing its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(answer: Callable[[Request], Any]) -> None:
    """Answer the requests on the input one by one; output of `answer` goes to the error stream."""
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            found = answer(json.loads(line))
        print(json.dumps(found), flush=True)


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Return seconds of `wall` and `cpu` (processor) time of `work`, and the process's peak `mib` so far.

    Peak memory is the resident set (Linux).
    """
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": processor, "mib": peak}
