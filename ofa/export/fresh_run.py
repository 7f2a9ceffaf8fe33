"""Running a bundle's files in their engines: logits, timed runs, and memory in a separate process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from ofa.common.accelerator import peak_memory_mb, set_threads
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.data.settings import OUTPUTS_BY_NAME
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.formats import PT2_FILE, format_of
from ofa.export.trust import check_trusted
from ofa.export.weights import load_subnet
from ofa.runtimes.base import Logits, Session, check_packages, each_image, refusal_named


@dataclass(frozen=True)
class FreshRun:
    """Measurements of a file in a separate process.

    Attributes:
        runs_ms: milliseconds of each timed run.
        peak_mib: largest resident memory of the whole process, Python and PyTorch's import included.
        added_mib: the part of `peak_mib` added by loading the engine and the file, and by running it.
    """

    runs_ms: tuple[float, ...]
    peak_mib: float
    added_mib: float


@dataclass(frozen=True)
class FreshRunSettings:
    """Settings of a `FreshRun`: threads, images per run, numbers of runs, and `trust` as in `load_file`."""

    threads: int = 1
    batch_size: int = 1
    warmup_runs: int = 5
    runs: int = 100
    trust: bool = False


def load_file(bundle: Bundle, name: str, *, trust: bool = False) -> Logits:
    """Return the function from images to logits of one of a bundle's files, run by its engine on the CPU.

    Args:
        bundle: the bundle.
        name: key in `bundle.files`: weights, a format, or a format and its precision such as onnx_int8.
        trust: load a file that can run code although it was not exported on this machine.

    Raises:
        UserError: if the bundle has no such file, it is damaged or not trusted, or its engine is not
            installed or does not offer its precision on this processor; for weights, if the bundle has no
            network.
    """
    session = _session(bundle, name)
    if session is None:
        if name == "weights":
            return _network(bundle)
        file = bundle.files[name]
        kind = format_of(name, file.precision)
        _check_names(bundle, name, (PT2_FILE,))
        if kind.runs_code:
            check_trusted(bundle.path / file.file, file.sha256, trust)
        with refusal_named("PyTorch", bundle.path / PT2_FILE):
            return kind.load(bundle.path)
    logits = session if bundle.files[name].batch_size is None else each_image(session)
    return _checked(bundle, name, logits)


def _checked(bundle: Bundle, name: str, logits: Logits) -> Logits:
    """Return a function whose outputs are those that the card promises, or an error that names the file."""
    path, num_classes = bundle.path / bundle.files[name].file, len(bundle.card.class_names)

    def checked(images: Tensor) -> Tensor:
        with refusal_named("Its engine", path):
            outputs = logits(images)
        if bundle.card.task in OUTPUTS_BY_NAME and outputs.shape != (len(images), num_classes):
            raise UserError(
                f"{path} gives outputs of shape {list(outputs.shape)} for {len(images)} images of "
                f"{num_classes} classes. Use an intact copy, or export it again."
            )
        return outputs

    return checked


def _network(bundle: Bundle) -> nn.Module:
    """Return the network; a sub-network is loaded anew to measure its memory."""
    if bundle.card.subnet is None:
        return bundle.network
    return load_subnet(bundle.path, bundle.files["weights"], bundle.card.subnet)


def bind_file(bundle: Bundle, name: str, images: Tensor, *, trust: bool = False) -> Callable[[], object]:
    """Return a function that runs a file on `images` with the least overhead, for timing; see `load_file`.

    Raises:
        UserError: if `load_file` fails, or the file cannot run that many images at once.
    """
    batch_size = bundle.files[name].batch_size if name in bundle.files else None
    if batch_size not in (None, len(images)):
        raise UserError(f"{name} runs {batch_size} image at a time, not {len(images)}.")
    session = _session(bundle, name)
    if session is not None:
        return session.bind(images)
    logits = load_file(bundle, name, trust=trust)
    return lambda: logits(images)


def _session(bundle: Bundle, name: str) -> Session | None:
    """Return the loaded file, or None if PyTorch itself runs it."""
    path = bundle.file(name)
    if name == "weights":
        return None
    precision = bundle.files[name].precision
    kind = format_of(name, precision)
    if kind.runtime is None:
        return None
    _check_names(bundle, name, () if kind.runtime.format is None else kind.runtime.format.file_names)
    check_packages(kind.runtime.packages, f"Running {name}", kind.runtime.extra)
    precisions = kind.runtime.offers().get("cpu", ())
    if precision not in precisions:
        raise UserError(
            f"{kind.runtime.title} offers {', '.join(precisions)} on this processor; {name} is {precision}."
        )
    with refusal_named(kind.runtime.title, path):
        return kind.runtime.load(path.parent, torch.get_num_threads(), precision, "cpu")


def _check_names(bundle: Bundle, name: str, expected_names: tuple[str, ...]) -> None:
    """Raise unless the files whose checksums are known are those that the engine is going to open."""
    paths = [PurePosixPath(part.file) for part in bundle.files[name].every_part]
    if tuple(path.name for path in paths) != expected_names or len({path.parent for path in paths}) > 1:
        raise UserError(
            f"The bundle {bundle.path} names other files of {name} than its engine opens, "
            f"{', '.join(expected_names)}. Use an intact copy, or export it again.",
            stage="export",
        )


def run_fresh(path: Path, name: str, settings: FreshRunSettings) -> FreshRun:
    """Run a bundle's file on random images in a new process.

    Raises:
        UserError: if the file cannot be run; the text is that of the process.
    """
    root = Path(__file__).resolve().parent.parent.parent
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "ofa.export.fresh_run", str(path), name, json.dumps(asdict(settings))]
    process = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        message = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{name} of {path} could not be run in a process of its own: {message}")
    return build(FreshRun, json.loads(process.stdout.splitlines()[-1]), "the fresh run")


@torch.inference_mode()
def _measure(path: Path, name: str, settings: FreshRunSettings) -> FreshRun:
    """Load and run a file in this process."""
    set_threads(settings.threads)
    bundle = load_bundle(path)
    images = torch.randn(settings.batch_size, *bundle.card.input_shape)
    initial_mib = _memory_mib("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the recorded peak
    run = bind_file(bundle, name, images, trust=settings.trust)
    for _ in range(settings.warmup_runs):
        run()
    runs = []
    for _ in range(settings.runs):
        start = time.perf_counter()
        run()
        runs.append((time.perf_counter() - start) * 1e3)
    peak_mib = _memory_mib("VmHWM")
    return FreshRun(tuple(runs), peak_mib, max(peak_mib - initial_mib, 0.0))


def _memory_mib(field: str) -> float:
    """Return a line of this process's status (Linux), elsewhere its largest resident memory."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return peak_memory_mb(torch.device("cpu"))


def _main() -> None:
    path, name, settings = sys.argv[1:]
    result = _measure(Path(path), name, build(FreshRunSettings, json.loads(settings)))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    _main()
