"""Measuring in fresh processes: the state of one process does not affect the latencies of another."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Protocol

import numpy as np

from latency_tables.engines.registry import create_engine
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.program_folder import ProgramFolder
from latency_tables.measuring.rounds import Visit, time_workloads
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent

# A new interpreter, which shares nothing with the program that measures.
CONTEXT: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
_PATIENCE_S = 10.0


class WorkloadList(Protocol):
    """A picklable list of workloads; the process creates the workloads themselves."""

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """The workloads to time."""
        ...


def process_seed(seed: int, process: int) -> int:
    """Return the seed of one of several processes that measure the same workloads."""
    return int(np.random.SeedSequence([seed, process]).generate_state(1)[0])


def process_progress(progress: ProgressCallback, process: int, processes: int) -> ProgressCallback:
    """Return a callback for one process that reports the progress of all processes."""

    def report(done: int, total: int, text: str) -> None:
        progress(process * total + done, processes * total, f"process {process + 1} of {processes}: {text}")

    return report


@dataclass(frozen=True)
class _Failure:
    """A user's error in the process."""

    text: str


@dataclass(frozen=True)
class _Progress:
    done: int
    total: int
    text: str


class _End:
    """The process has measured everything."""


def time_in_fresh_process(
    plan: WorkloadList,
    device: DeviceSpec,
    seed: int,
    record: Callable[[Sequence[Visit]], None],
    earlier: Mapping[str, Sequence[Sequence[float]]] | None = None,
    progress: ProgressCallback = silent,
    budget_s: float | None = None,
    programs: ProgramFolder | None = None,
) -> None:
    """Run `latency_tables.measuring.rounds.time_workloads` in a separate process.

    Raises:
        UserError: also if the process ends early, e.g. for lack of memory or a lost device; its
            recorded visits are saved.
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    arguments = (sender, plan, device, seed, dict(earlier or {}), budget_s, programs)
    process = CONTEXT.Process(target=_work, args=arguments, name=f"measuring on {device.name}")
    with _no_main_module():
        process.start()
    sender.close()
    patience_s = 0.0
    try:
        _receive(receiver, process, device, record, progress)
        patience_s = _PATIENCE_S
    finally:
        _end(process, patience_s)
        receiver.close()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Start a process that does not run the program's main file, as spawned ones do: it would train again."""
    main_module = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module


def _receive(
    receiver: Connection,
    process: BaseProcess,
    device: DeviceSpec,
    record: Callable[[Sequence[Visit]], None],
    progress: ProgressCallback,
) -> None:
    """Forward the messages of the process until it reports its end."""
    while True:
        try:
            message = receiver.recv()
        except (EOFError, ConnectionResetError) as error:
            process.join(_PATIENCE_S)
            raise UserError(
                f"The process that measured on device {device.name!r} {_ending(process.exitcode)}: the "
                "device, its driver or the memory may be gone. All measurements are saved; start again "
                "to go on."
            ) from error
        match message:
            case _Progress():
                progress(message.done, message.total, message.text)
            case _Failure():
                raise UserError(message.text)
            case _End():
                return
            case _:
                record(message)


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "stopped answering"
    if exit_code < 0:
        return f"was ended by signal {signal.Signals(-exit_code).name}"
    return f"ended with exit status {exit_code}"


def _end(process: BaseProcess, patience_s: float) -> None:
    """Wait this long for the process to end by itself, then terminate it."""
    process.join(patience_s)
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            stop()
            process.join(_PATIENCE_S)


def _work(
    sender: Connection,
    plan: WorkloadList,
    device: DeviceSpec,
    seed: int,
    earlier: Mapping[str, Sequence[Sequence[float]]],
    budget_s: float | None,
    programs: ProgramFolder | None,
) -> None:
    """Measure and send the results; the parent handles interruptions."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def progress(done: int, total: int, text: str) -> None:
        sender.send(_Progress(done, total, text))

    try:
        workloads = plan.workloads
        time_workloads(
            create_engine(device), workloads, device, seed, sender.send, earlier, progress, budget_s, programs
        )
    except UserError as error:
        sender.send(_Failure(str(error)))
    except BrokenPipeError:  # the parent is gone
        return
    else:
        sender.send(_End())
