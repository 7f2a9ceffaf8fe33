"""Measure the networks of this kit on this device: python3 measure.py

Needs Python 3.8 or later, numpy, and onnxruntime or openvino; nothing else. It can be interrupted at any time
(Ctrl-C, power cut): the same command continues. It ends with the file measurements.json, which belongs back
on the computer where the kit was made.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from kit_engines import ENGINES, LOADERS, choose_engine, failures_named
    from kit_folder import (
        FOLDER,
        RESULT,
        SCHEMA_VERSION,
        KitError,
        check_files,
        pin,
        processor_name,
        read_manifest,
    )
    from kit_runs import Runs, quantile, relative_error
except ModuleNotFoundError as problem:
    print(f"error: {problem}. Copy the whole folder of the kit again.", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from kit_engines import Session

ENOUGH_PROGRAMS = 0.9  # rounds end when this share of the programs has a small spread
SLOW = 1.15  # a round is disturbed if its median visit takes this factor longer than the fastest
MODEL_COPIES = 6  # largest memory of a loaded model, in sizes of its file
MEMORY_WITHOUT_PROC = 1 << 30
LINE_INTERVAL_S = 15.0


class Progress:
    """Prints the progress and the time left."""

    def __init__(self) -> None:
        """Start the clock."""
        self._start = self._last = time.monotonic()

    def show(self, done_share: float, left_s: float, text: str) -> None:
        """Print a line: redrawn on a terminal, at intervals elsewhere."""
        now, terminal = time.monotonic(), sys.stdout.isatty()
        if now - self._last < (0.2 if terminal else LINE_INTERVAL_S):
            return
        self._last = now
        times = f"{now - self._start:.0f} s gone, at most {left_s:.0f} s left"
        line = f"{100 * done_share:3.0f} %  {times}  {text}"
        print(f"\r{line:78s}" if terminal else line, end="" if terminal else "\n", flush=True)


def chunks(programs: list[dict[str, Any]], order: list[int]) -> list[list[dict[str, Any]]]:
    """Return the programs in random order, in parts that fit in memory."""
    memory = MEMORY_WITHOUT_PROC
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                memory = 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    parts: list[list[dict[str, Any]]] = []
    size = 0
    for program in (programs[i] for i in order):
        size += program["bytes"]
        if not parts or size > memory / MODEL_COPIES:
            parts.append([])
            size = program["bytes"]
        parts[-1].append(program)
    return parts


def load(
    program: dict[str, Any], load_engine: Any, options: argparse.Namespace, device: dict[str, Any]
) -> Session:
    """Return a function that runs a program once."""
    rng = np.random.default_rng(options.seed)
    array = rng.standard_normal(program["input_shape"]).astype(np.float32)
    files = [gzip.decompress((FOLDER / f["file"]).read_bytes()) for f in program["files"]]
    with failures_named(program["key"]):
        session: Session = load_engine(files, array, options.threads, device["precision"])
        session()
    return session


class Measurement:
    """The rounds of one process over all programs."""

    def __init__(
        self, manifest: dict[str, Any], options: argparse.Namespace, runs: Runs, process: int
    ) -> None:
        """Take the manifest, the options, earlier measurements, and the number of the process."""
        self.device, self.programs = manifest["device"], manifest["programs"]
        self.options, self.runs, self.process = options, runs, process
        self.latencies: dict[str, list[float]] = {program["key"]: [] for program in self.programs}
        for visiting_process, key, runs_ms, _ in runs.visits:
            if visiting_process == process and key in self.latencies:
                self.latencies[key].append(quantile(runs_ms))
        self.num_visits = sum(map(len, self.latencies.values()))
        self.max_visits = options.rounds * sum(p["visits_per_round"] for p in self.programs)
        self.budget_s = 60 * options.minutes / options.processes
        self.progress = Progress()
        self.rounds = self.disturbed = 0

    def run(self) -> None:
        """Visit all programs in shuffled rounds until the stopping condition holds."""
        programs = self.programs
        rng = np.random.default_rng([self.options.seed, self.process, self.num_visits])
        parts = chunks(programs, rng.permutation(len(programs)).tolist())
        visits = [sum(p["visits_per_round"] for p in part) for part in parts]
        for number, part in enumerate(parts):
            spent = self.runs.spent(self.process)
            deadline_s = spent + (self.budget_s - spent) * visits[number] / sum(visits[number:])
            self._measure(part, deadline_s, rng, f"part {number + 1}/{len(parts)}")
        self.runs.finish(self.process)

    def _measure(self, part: list[dict[str, Any]], deadline_s: float, rng: Any, text: str) -> None:
        """Run the rounds of programs that are in memory together."""
        sessions: dict[str, Session] = {}
        while True:
            number = min(len(self.latencies[p["key"]]) // p["visits_per_round"] for p in part)
            if self._enough(part, number, deadline_s):
                return
            # After an interruption, some programs have more visits than others.
            num_missing = {
                p["key"]: (number + 1) * p["visits_per_round"] - len(self.latencies[p["key"]]) for p in part
            }
            for program in part:
                if num_missing[program["key"]] > 0 and program["key"] not in sessions:
                    self._show(f"{text}: loading")
                    loader = LOADERS[self.options.engine]
                    sessions[program["key"]] = load(program, loader, self.options, self.device)
            queue = [key for key, count in num_missing.items() for _ in range(count)]
            slowdowns = [self._visit(queue[i], sessions[queue[i]], text) for i in rng.permutation(len(queue))]
            self.rounds += 1
            self.disturbed += float(np.median(slowdowns)) > SLOW

    def _enough(self, part: list[dict[str, Any]], number: int, deadline_s: float) -> bool:
        """Return whether this number of rounds is sufficient."""
        if number < min(self.device["min_rounds"], self.options.rounds):
            return False
        if number >= self.options.rounds or self.runs.spent(self.process) >= deadline_s:
            return True
        small = self.device["spread_percent"] / 100
        is_small = [relative_error(self.latencies[p["key"]]) <= small for p in part]
        return bool(sum(is_small) >= ENOUGH_PROGRAMS * len(part))

    def _visit(self, key: str, session: Session, text: str) -> float:
        """Time one visit, record it, and return the ratio of its latency to the fastest one."""
        start = time.perf_counter()
        runs_ms = []
        with failures_named(key):
            for _ in range(self.device["warmup_runs"]):
                session()
            for _ in range(self.device["runs_per_visit"]):
                before = time.perf_counter()
                session()
                runs_ms.append((time.perf_counter() - before) * 1e3)
        self.runs.add(self.process, key, runs_ms, round(time.perf_counter() - start, 6))
        self.latencies[key].append(quantile(runs_ms))
        self.num_visits += 1
        self._show(text)
        return self.latencies[key][-1] / min(self.latencies[key])

    def _show(self, text: str) -> None:
        options, spent = self.options, self.runs.spent(self.process)
        share = min(1.0, max(self.num_visits / self.max_visits, spent / self.budget_s))
        num_left = self.max_visits - self.num_visits
        left_s = spent * num_left / self.num_visits if self.num_visits else self.budget_s
        left_s = max(0.0, min(self.budget_s - spent, left_s))
        later_s = (options.processes - self.process - 1) * (spent + left_s)
        self.progress.show(share, left_s + later_s, f"process {self.process + 1}/{options.processes}, {text}")


def write_result(manifest: dict[str, Any], checksum: str, options: argparse.Namespace, runs: Runs) -> None:
    """Write measurements.json, whole or not at all."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "manifest_sha256": checksum,
        "device": manifest["device"]["name"],
        "processor": processor_name(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "engine": ENGINES[options.engine][0],
        "engine_title": ENGINES[options.engine][1],
        "engine_version": options.engine_version,
        "threads": options.threads,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "visits": runs.visits,
    }
    temporary = RESULT.with_name(".measurements.tmp")
    temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
    temporary.replace(RESULT)


def parse(manifest: dict[str, Any]) -> argparse.Namespace:
    """Return the options, with the kit's values as defaults."""
    device = manifest["device"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--engine", choices=sorted(ENGINES), help="default: the kit's, if it names one of these"
    )
    parser.add_argument(
        "--threads", type=int, default=device["threads"], help="threads of a run (%(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=device["minutes"], help="total time to measure (%(default)g)"
    )
    options = parser.parse_args()
    if options.threads < 1 or not options.minutes > 0:
        parser.error("--threads and --minutes must be positive")
    options.rounds, options.processes = device["rounds"], device["processes"]
    options.seed = manifest["seed"]
    return options


def measure() -> None:
    """Check the kit, make the missing measurements, write the result."""
    manifest, checksum = read_manifest()
    options = parse(manifest)
    check_files(manifest)
    options.engine, options.engine_version = choose_engine(options.engine, manifest["device"])
    header = {
        "manifest_sha256": checksum,
        "engine": options.engine,
        "engine_version": options.engine_version,
        "threads": options.threads,
        "processor": processor_name(),
    }
    pin(manifest["device"]["affinity"])
    runs = Runs(header)
    process = next((k for k in range(options.processes) if not runs.finished(k)), None)
    if process is not None:
        print(
            f"{len(manifest['programs'])} programs, process {process + 1} of {options.processes}", flush=True
        )
        measurement = Measurement(manifest, options, runs, process)
        measurement.run()
        if measurement.disturbed > 0.2 * measurement.rounds:
            print(
                f"\nThe device was busy or throttled in {measurement.disturbed} of {measurement.rounds} "
                "rounds. Close other programs, cool it, and measure again if the table's error is high."
            )
        if process + 1 < options.processes:
            # A fresh process: its memory and its core differ, and the result is the mean over both.
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, str(FOLDER / "measure.py"), *sys.argv[1:]])
    write_result(manifest, checksum, options, runs)
    print(f"\ndone: take {RESULT} back to the computer where the kit was made")


if __name__ == "__main__":
    try:
        measure()
    except KitError as problem:
        print(f"\nerror: {problem}", file=sys.stderr)
        sys.exit(2)
    except OSError as problem:
        print(f"\nerror: {problem}. Check free space and permissions, then start again.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted. All finished work is saved; run the same command to continue.", file=sys.stderr)
        sys.exit(130)
