"""Commands that are interrupted by SIGINT at random moments and started again, as with Ctrl-C.

Each command is run once as it is, then `--times` times with a signal at a random moment, each time once more
after it. A line says whether the outcome is the same: weights, records, predictor, search, bundle.

Run: python benchmarks/interrupted_commands.py FOLDER [--times 10] [--commands train collect]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("largest", "kernel", "depth_1", "width_1", "width_2")
SHORT = (
    *("space.resolutions=[8,16]", "phases.largest.warmup_epochs=0", "training.batch_size=64"),
    *(f"phases.{phase}.epochs=1" for phase in PHASES),
    *("training.validation_images=50", "training.calibration_images=50"),
)
TIMING = ("device.rounds=4", "device.min_rounds=2", "device.minutes=0.3", "device.processes=1")
NAME = "my run (2)"


@dataclass(frozen=True)
class Subject:
    """A command: its settings, the paths in the run that it makes, and what counts as the same outcome."""

    settings: tuple[str, ...]
    made: tuple[str, ...]
    outcome: Callable[[Path], object]


def tensors(path: Path) -> object:
    """Return what decides whether two files of weights are equal."""
    sys.path.insert(0, str(ROOT))
    from ofa.common.tensors import content_digest, load_tensors

    return content_digest(load_tensors(path, "file")["state"])


def records(path: Path) -> object:
    """Return the measured networks and their values, whatever their order."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted((line["id"], line["top1"]) for line in lines[1:])


def found_networks(path: Path) -> object:
    """Return the networks of the front of a search and their values."""
    return [(entry["config"], entry["accuracy"]) for entry in json.loads(path.read_text())["front"]]


def file_digest(path: Path) -> object:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


SUBJECTS = {
    "train": Subject(
        SHORT,
        ("supernet.pt", "checkpoints", "config.json", "teacher.pt"),
        lambda run: tensors(run / "supernet.pt"),
    ),
    "collect": Subject(
        ("count=60", "calibration_images=200"),
        ("accuracy.jsonl",),
        lambda run: records(run / "accuracy.jsonl"),
    ),
    "fit": Subject((), ("predictor.pt", "predictor.json"), lambda run: file_digest(run / "predictor.pt")),
    "measure": Subject(
        (*TIMING, "max_table_error=1000", "calibration_networks=3", "validation_networks=3"),
        ("latency",),
        lambda run: sorted(json.loads((run / "latency" / "my_cpu.json").read_text())["entries"]),
    ),
    "search": Subject(
        ("limits.macs_m=0.5", "name=found"),
        ("search",),
        lambda run: found_networks(run / "search" / "found.json"),
    ),
    "export": Subject(
        ("subnet=largest", "formats=[onnx]", "calibration_images=200"),
        ("bundles",),
        lambda run: [
            file_digest(run / "bundles" / "largest" / name) for name in ("weights.safetensors", "model.onnx")
        ],
    ),
}


def ofa(folder: Path, command: str) -> subprocess.Popen[str]:
    """Start a command in `folder`."""
    arguments = [command, f"run_name={NAME}", *SUBJECTS[command].settings]
    return subprocess.Popen(
        [sys.executable, "-m", "ofa", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        # A background job of a shell ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def completed(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return status, output and errors of a process when it has ended."""
    out, errors = process.communicate()
    return process.returncode, out, errors


def check(command: str, folder: Path, times: int, rng: np.random.Generator) -> bool:
    """Interrupt a command `times` times and print a line for each; return whether all ended well."""
    subject, run = SUBJECTS[command], folder / "runs" / NAME
    start_s = time.monotonic()
    status, _, errors = completed(ofa(folder, command))
    assert status == 0, errors
    whole_s, expected, is_good = time.monotonic() - start_s, subject.outcome(run), True
    for number in range(times):
        remove(run, subject.made)
        moment_s = float(rng.uniform(0.0, whole_s))
        process = ofa(folder, command)
        time.sleep(moment_s)
        process.send_signal(signal.SIGINT)
        status, out, errors = completed(process)
        said = (errors or out).strip().splitlines()[-1:] or [""]
        status_again, _, errors_again = completed(ofa(folder, command))
        is_equal = status_again == 0 and subject.outcome(run) == expected
        # A signal after the last line ends Python while it tidies up.
        has_ended = status == 0 or (status == -signal.SIGINT and "next: " in out)
        is_clean = (has_ended or status == 130) and "Traceback" not in errors + errors_again
        is_good = is_good and is_equal and is_clean
        verdict = ("equal" if is_equal else "DIFFERENT") + ("" if is_clean else ", NOT CLEAN")
        moment = f"after {moment_s:.1f} of {whole_s:.1f} s, status {status}"
        print(f"{command} {number}: {moment}: {verdict}; {said[0]}", flush=True)
    return is_good


def remove(run: Path, names: tuple[str, ...]) -> None:
    """Remove what a command made, so that it begins anew."""
    for path in (run / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def main() -> None:
    """Check the commands in the order of the pipeline, each on what the one before has made."""
    parser = argparse.ArgumentParser(description="Interrupted commands.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--commands", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    verdicts = []
    for command in SUBJECTS:
        times = arguments.times if command in arguments.commands else 0
        verdicts.append(check(command, arguments.folder.resolve(), times, rng))
    sys.exit(not all(verdicts))


if __name__ == "__main__":
    main()
