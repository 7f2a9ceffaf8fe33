"""Measure the networks of this kit on this device: python3 measure.py

Needs Python 3.8 or later, numpy, and onnxruntime or openvino; nothing else. Interrupt it whenever you like
(Ctrl-C, power cut): the same command goes on where it was. It ends with the file measurements.json, which
belongs back on the computer where the kit was made.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import platform
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

SCHEMA_VERSION = 1
FOLDER = Path(__file__).resolve().parent
MANIFEST, RUNS, RESULT = FOLDER / "manifest.json", FOLDER / "runs.jsonl", FOLDER / "measurements.json"
ENGINES = {"onnxruntime": ("onnx_runtime", "ONNX Runtime"), "openvino": ("openvino", "OpenVINO")}
"""By the name of their package: their name in device descriptions, and their title."""

LATENCY_SHARE = 0.25  # a latency is this quantile of the runs
ENOUGH_PROGRAMS = 0.9  # rounds end when this share of the programs is known well enough
SLOW = 1.15  # a round is disturbed where its visits take so much longer than the fastest ones
MODEL_COPIES = 6  # memory that a loaded model may take, in sizes of its file
MEMORY_WITHOUT_PROC = 1 << 30
LINE_INTERVAL_S = 15.0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Session = Callable[[], object]


class KitError(Exception):
    """What keeps this kit from being measured here; printed without a traceback."""


# -- the kit -----------------------------------------------------------------------------------------------


def sha256(content: bytes) -> str:
    """Return the checksum of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read_manifest() -> tuple[dict[str, Any], str]:
    """Return the manifest and its checksum."""
    if not MANIFEST.is_file():
        raise KitError(f"{MANIFEST} is missing. Copy the whole folder of the kit again.")
    content = MANIFEST.read_bytes()
    try:
        manifest = json.loads(content.decode())
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise KitError(f"{MANIFEST} is damaged ({error}). Copy the whole folder of the kit again.") from error
    if version != SCHEMA_VERSION:
        raise KitError(f"The kit has schema version {version}; this program reads {SCHEMA_VERSION}.")
    return manifest, sha256(content)


def check_files(manifest: dict[str, Any]) -> None:
    """Raise unless all files are as they were made; all others are named."""
    wanted = dict(manifest["files"])
    wanted.update({f["file"]: f["sha256"] for program in manifest["programs"] for f in program["files"]})
    missing = [name for name in wanted if not (FOLDER / name).is_file()]
    present = [name for name in wanted if name not in missing]
    changed = [name for name in present if sha256((FOLDER / name).read_bytes()) != wanted[name]]
    if missing or changed:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"not as they were made: {', '.join(changed)}"] if changed else []
        raise KitError(f"Files of the kit are {'; '.join(parts)}. Copy the whole folder of the kit again.")


# -- engines -----------------------------------------------------------------------------------------------


def load_onnxruntime(files: list[bytes], array: Any, threads: int, precision: str) -> Session:
    """Return one run of an ONNX model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait busily after a run would take the cores from the session that runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)


def load_openvino(files: list[bytes], array: Any, threads: int, precision: str) -> Session:
    """Return one run of an ONNX model, or of OpenVINO's own two files."""
    import openvino

    core = openvino.Core()
    if len(files) > 1:
        model = core.read_model(model=files[0], weights=files[1])
    else:
        model = core.read_model(model=files[0])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": "NO",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(array, shared_memory=True))

    def run() -> object:
        request.infer(share_outputs=True)
        return array  # which the request only points to

    return run


LOADERS: dict[str, Callable[[list[bytes], Any, int, str], Session]] = {
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
}


def choose_engine(asked: str | None, device: dict[str, Any]) -> tuple[str, str]:
    """Return the engine's package and its version."""
    own = next((package for package, names in ENGINES.items() if names[0] == device["engine"]), "onnxruntime")
    name, precision = asked or own, device["precision"]
    if name != own and precision == "int8":
        raise KitError(f"The kit was quantised for {own}; it cannot be measured with {name}.")
    if name == "onnxruntime" and precision == "bf16":
        raise KitError("The kit asks for bf16, which onnxruntime does not offer. Use --engine openvino.")
    try:
        module = __import__(name)
    except ImportError as error:
        others = " or ".join(f"--engine {package}" for package in ENGINES if package != name)
        raise KitError(f"{name} is not installed ({error}): pip install {name}, or try {others}.") from error
    if precision == "bf16" and "BF16" not in module.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise KitError("The kit asks for bf16, which this processor has no instructions for.")
    version = getattr(module, "__version__", None) or module.get_version()
    return name, str(version)


@contextmanager
def failures_named(key: str) -> Iterator[None]:
    """Turn an engine's failure into an error that names the program."""
    try:
        yield
    except (KitError, OSError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        raise KitError(
            f"The engine failed at {key}: {type(error).__name__}: {text}. What was measured is kept; the "
            "same command goes on when the cause is removed."
        ) from error


def pin(cores: list[int] | None) -> None:
    """Keep this process on these cores, if the kit names any."""
    if not cores:
        return
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError) as error:
        raise KitError(f"This device cannot pin the measurement to the cores {cores} ({error}).") from error


def processor_name() -> str:
    """Return what this device calls its processor."""
    names = {"model name", "hardware", "model"}
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = [
        line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip().lower() in names
    ]
    return next(
        (name for name in found if name and not name.isdigit()), platform.processor() or platform.machine()
    )


# -- what was measured -------------------------------------------------------------------------------------


class Runs:
    """The visits made so far: a file of JSON lines, and `visits`, a list in the order they were made.

    Each visit is its process, program, milliseconds of its runs, and seconds of all.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        """Read the file, or start it; a line that was cut off is dropped."""
        self.visits: list[list[Any]] = []
        self._spent_s: dict[int, float] = {}
        self._finished: set[int] = set()
        self._file = RUNS.open("a+b", buffering=0)
        self._lock()
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        whole = lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
        if len(whole) < len(lines):
            self._file.truncate(sum(map(len, whole)))
        if not whole:
            self._write(header)
        for index, line in enumerate(whole):
            try:
                values = json.loads(line.decode())
                if index:
                    self._keep(
                        values["process"], values["key"], list(map(float, values["runs_ms"])), values["s"]
                    )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise KitError(
                    f"Line {index + 1} of {RUNS} is damaged ({error}). Delete the file."
                ) from error
            if not index and values != header:
                differing = sorted(
                    k for k in header if not isinstance(values, dict) or values.get(k) != header[k]
                )
                raise KitError(
                    f"{RUNS} was measured with another {', '.join(differing)}. Go on with the same settings, "
                    "or delete the file to measure anew."
                )

    def _lock(self) -> None:
        """Keep a second process out, where the system can."""
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise KitError(
                "Another measure.py is at work in this folder. Wait for it, or stop it."
            ) from error

    def _write(self, values: dict[str, Any]) -> None:
        self._file.write((json.dumps(values) + "\n").encode())

    def _keep(self, process: int, key: str, runs_ms: list[float], seconds: float) -> None:
        if not key:
            self._finished.add(process)
            return
        self.visits.append([process, key, runs_ms, seconds])
        self._spent_s[process] = self.spent(process) + seconds

    def add(self, process: int, key: str, runs_ms: list[float], seconds: float) -> None:
        """Add a visit."""
        for run in runs_ms:
            if not 0 < run < math.inf:
                raise KitError(f"A run of {key} took {run} ms by the clock; expected a number above 0.")
        rounded = [float(f"{run:.6g}") for run in runs_ms]
        self._write({"process": process, "key": key, "runs_ms": rounded, "s": seconds})
        self._keep(process, key, rounded, seconds)

    def spent(self, process: int) -> float:
        """Return the seconds that a process has measured so far."""
        return self._spent_s.get(process, 0.0)

    def finish(self, process: int) -> None:
        """Note that a process is complete."""
        self._write({"process": process, "key": "", "runs_ms": [], "s": 0.0})
        self._keep(process, "", [], 0.0)

    def finished(self, process: int) -> bool:
        """Return whether a process is complete."""
        return process in self._finished


def quantile(values: list[float]) -> float:
    """Return the latency that runs (ms) give."""
    return float(np.percentile(values, 100 * LATENCY_SHARE))


def relative_error(latencies: list[float]) -> float:
    """Return the standard error of the latency that visits of these latencies give, as a share of it."""
    count = len(latencies)
    if count < 5:
        return math.inf
    ordered = sorted(latencies)
    middle, width = LATENCY_SHARE * (count - 1), math.sqrt(count * LATENCY_SHARE * (1 - LATENCY_SHARE))
    low, high = max(0, math.floor(middle - width)), min(count - 1, math.ceil(middle + width))
    return (ordered[high] - ordered[low]) / 2 / quantile(ordered)


# -- measuring ---------------------------------------------------------------------------------------------


class Progress:
    """Prints how far it is, with the time left."""

    def __init__(self) -> None:
        """Start the clock."""
        self._start = self._last = time.monotonic()

    def show(self, share: float, left_s: float, text: str) -> None:
        """Print a line: over and over on a terminal, now and then elsewhere."""
        now, terminal = time.monotonic(), sys.stdout.isatty()
        if now - self._last < (0.2 if terminal else LINE_INTERVAL_S):
            return
        self._last = now
        line = f"{100 * share:3.0f} %  {now - self._start:.0f} s gone, at most {left_s:.0f} s left  {text}"
        print(f"\r{line:78s}" if terminal else line, end="" if terminal else "\n", flush=True)


def chunks(programs: list[dict[str, Any]], order: list[int]) -> list[list[dict[str, Any]]]:
    """Return the programs in random order, in parts that memory can hold."""
    memory = MEMORY_WITHOUT_PROC
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
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
    """Return a run of a program."""
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
        """Take the manifest, the options, what was measured, and the number of the process."""
        self.device, self.programs = manifest["device"], manifest["programs"]
        self.options, self.runs, self.process = options, runs, process
        self.latencies: dict[str, list[float]] = {program["key"]: [] for program in self.programs}
        for made_by, key, runs_ms, _ in runs.visits:
            if made_by == process and key in self.latencies:
                self.latencies[key].append(quantile(runs_ms))
        self.made = sum(map(len, self.latencies.values()))
        self.total = options.rounds * sum(p["visits_per_round"] for p in self.programs)
        self.budget_s = 60 * options.minutes / options.processes
        self.progress = Progress()
        self.rounds = self.disturbed = 0

    def run(self) -> None:
        """Visit all programs in shuffled rounds until that is enough."""
        programs = self.programs
        rng = np.random.default_rng([self.options.seed, self.process, self.made])
        parts = chunks(programs, rng.permutation(len(programs)).tolist())
        visits = [sum(p["visits_per_round"] for p in part) for part in parts]
        for number, part in enumerate(parts):
            spent = self.runs.spent(self.process)
            deadline_s = spent + (self.budget_s - spent) * visits[number] / sum(visits[number:])
            self._measure(part, deadline_s, rng, f"part {number + 1}/{len(parts)}")
        self.runs.finish(self.process)

    def _measure(self, part: list[dict[str, Any]], deadline_s: float, rng: Any, text: str) -> None:
        """Make the rounds of programs that are in memory together."""
        sessions: dict[str, Session] = {}
        while True:
            number = min(len(self.latencies[p["key"]]) // p["visits_per_round"] for p in part)
            if self._enough(part, number, deadline_s):
                return
            # An interruption left some programs with more visits than others.
            left = {
                p["key"]: (number + 1) * p["visits_per_round"] - len(self.latencies[p["key"]]) for p in part
            }
            for program in part:
                if left[program["key"]] > 0 and program["key"] not in sessions:
                    self._show(f"{text}: loading")
                    loader = LOADERS[self.options.engine]
                    sessions[program["key"]] = load(program, loader, self.options, self.device)
            due = [key for key, count in left.items() for _ in range(count)]
            slowdowns = [self._visit(due[i], sessions[due[i]], text) for i in rng.permutation(len(due))]
            self.rounds += 1
            self.disturbed += float(np.median(slowdowns)) > SLOW

    def _enough(self, part: list[dict[str, Any]], number: int, deadline_s: float) -> bool:
        """Return whether so many rounds are enough."""
        if number < min(self.device["min_rounds"], self.options.rounds):
            return False
        if number >= self.options.rounds or self.runs.spent(self.process) >= deadline_s:
            return True
        small = self.device["spread_percent"] / 100
        known = [relative_error(self.latencies[p["key"]]) <= small for p in part]
        return bool(sum(known) >= ENOUGH_PROGRAMS * len(part))

    def _visit(self, key: str, session: Session, text: str) -> float:
        """Time one visit, record it, and return how much longer it took than the fastest one."""
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
        self.made += 1
        self._show(text)
        return self.latencies[key][-1] / min(self.latencies[key])

    def _show(self, text: str) -> None:
        options, spent = self.options, self.runs.spent(self.process)
        share = min(1.0, max(self.made / self.total, spent / self.budget_s))
        left = self.budget_s if not self.made else spent * (self.total - self.made) / self.made
        left = max(0.0, min(self.budget_s - spent, left))
        later = (options.processes - self.process - 1) * (spent + left)
        self.progress.show(share, left + later, f"process {self.process + 1}/{options.processes}, {text}")


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
    temporary.write_text(json.dumps(values) + "\n")
    temporary.replace(RESULT)


def parse(manifest: dict[str, Any]) -> argparse.Namespace:
    """Return the options, with what the kit says where nothing is given."""
    device = manifest["device"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--engine", choices=sorted(ENGINES), help="default: the kit's, if it names one of these"
    )
    parser.add_argument(
        "--threads", type=int, default=device["threads"], help="threads of a run (%(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=device["minutes"], help="time to measure, all in all (%(default)g)"
    )
    options = parser.parse_args()
    if options.threads < 1 or not options.minutes > 0:
        parser.error("--threads and --minutes must be positive")
    options.rounds, options.processes = device["rounds"], device["processes"]
    options.seed = manifest["seed"]
    return options


def measure() -> None:
    """Check the kit, measure what is missing, write the result."""
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
        print("\nInterrupted; the same command goes on where this one was.", file=sys.stderr)
        sys.exit(130)
