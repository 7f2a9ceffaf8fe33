"""Workers that decode images: as many as the machine carries, none that is waited for, none left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa.common.errors import UserError
from ofa.data import workers
from ofa.data.workers import batches_of, plan_workers, sendable

PROGRAM = """
import sys
import torch
from ofa.data import DataSettings, load_data

settings = DataSettings("image_folder", sys.argv[1], image_size=8, workers=2, validation_size=2, test_size=2)
data = load_data(settings)
arguments = {"train_batches": (2, 0, 0), "batches": ("train", 2)}[sys.argv[2]]
batches = getattr(data, sys.argv[2])(*arguments, torch.device("cpu"))
for images, labels in batches:
    raise ArithmeticError("nobody catches this")
"""


def save_pictures(folder: Path, side: int) -> None:
    """Save 20 pictures of each of two classes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for index in range(20):
            pixels = rng.integers(0, 255, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["train_batches", "batches"])
def test_an_error_between_batches_ends_the_process(method: str, tmp_path: Path) -> None:
    save_pictures(tmp_path, side=9)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ArithmeticError: nobody catches this"


MIB = 2**20


@pytest.fixture
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "num_processors", lambda: 8)


@pytest.mark.usefixtures("eight_processors")
@pytest.mark.parametrize(
    ("free_mib", "expected"),
    [
        (None, (4, 2)),
        (1000, (4, 2)),
        (112, (4, 2)),
        (90, (4, 1)),
        (67, (4, 1)),
        (50, (2, 1)),
        (34, (1, 1)),
        (30, (0, None)),
    ],
)
def test_shared_memory_limits_the_workers(
    free_mib: int | None, expected: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SHARED_MEMORY", Path("/nowhere"))
    plan = plan_workers(4, 100, 10 * MIB, None if free_mib is None else free_mib * MIB)
    assert (plan.num_workers, plan.prefetch) == expected
    assert bool(plan.remark) == (expected[0] < 4)
    if plan.remark:
        number = {0: "no workers", 1: "1 worker", 2: "2 workers"}[expected[0]]
        assert (
            f"{free_mib} MiB free, too little for 4 workers and batches of 10.0 MiB: {number} will"
            in plan.remark
        )
        assert "--shm-size" in plan.remark


@pytest.mark.usefixtures("eight_processors")
def test_processors_batches_and_files_limit_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_workers(4, 2, MIB, 10**9).num_workers == 2
    assert plan_workers(20, 100, MIB, 10**9).num_workers == 8
    assert plan_workers(0, 100, MIB, 10**9) == workers.WorkerPlan(0, None)
    monkeypatch.setattr(workers, "num_free_files", lambda: 63)
    plan = plan_workers(4, 100, MIB, 10**9)
    assert plan.num_workers == 0 and "Only 63 more files can be opened" in plan.remark


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100 * MIB)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr(workers, "num_processors", lambda: 4)
    assert plan_workers(2, 100, 10 * MIB).num_workers == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert plan_workers(2, 100, 10 * MIB).num_workers == 0


class Items(Dataset[int]):
    """Numbers; the worker that is asked for the number `fatal` does something to itself first."""

    def __init__(self, fatal: Callable[[], object]) -> None:
        self._fatal = fatal

    def __getitem__(self, index: int) -> int:
        if index == 3:
            self._fatal()
        return index


def collect(fatal: Callable[[], object], **settings: Any) -> list[Any]:
    batches: Any = [[index] for index in range(6)]
    loader: DataLoader[Any] = DataLoader(Items(fatal), batch_sampler=batches, num_workers=2, **settings)
    return list(batches_of(loader))


def test_a_worker_that_is_killed_is_named() -> None:
    words = r"was killed: DataLoader worker \(pid.*Most often the memory is used up"
    with pytest.raises(UserError, match=words):
        collect(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_full_shared_memory_is_named() -> None:
    def lost() -> Iterator[int]:
        yield 1
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that …")

    batches: Any = lost()
    with pytest.raises(UserError, match=r"/dev/shm is full\. Give it more \(docker run --shm-size"):
        list(batches_of(batches))


def test_a_worker_that_sends_nothing_is_not_waited_for_for_ever() -> None:
    with pytest.raises(UserError, match=r"No batch came within 300 s .*storage of the images does not"):
        collect(lambda: time.sleep(60), timeout=1)


def test_another_error_keeps_its_own_text() -> None:
    def fail() -> None:
        raise RuntimeError("an error of the data set")

    with pytest.raises(RuntimeError, match="an error of the data set"):
        collect(fail)


def full(items: Sequence[int]) -> object:
    try:
        return sendable(torch.tensor(items))
    except UserError as error:
        return error


def test_a_batch_that_cannot_be_handed_over_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensor: Tensor) -> None:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device"
        )

    monkeypatch.setattr(Tensor, "share_memory_", fail)
    batches = collect(lambda: None, collate_fn=full)
    assert len(batches) == 6 and all(isinstance(batch, UserError) for batch in batches)
    assert "could not be handed over by /dev/shm: unable to allocate" in str(batches[0])
    # In this process there is nothing to hand over.
    assert isinstance(full([1]), Tensor)


SMALL = 'mount -t tmpfs -o size=300k tmpfs /dev/shm && exec "$0" "$@"'


@pytest.mark.slow
def test_a_container_with_little_shared_memory_reads_its_pictures(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount", "bash", "-c"]
    probe = [*unshare, "mount -t tmpfs tmpfs /dev/shm"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount another /dev/shm")
    save_pictures(tmp_path, side=80)
    program = PROGRAM.replace("image_size=8", "image_size=128").replace("raise ArithmeticError", "print")
    command = [*unshare, SMALL, sys.executable, "-c", program, str(tmp_path), "batches"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "/dev/shm has 0 MiB free" in done.stderr and len(done.stdout.splitlines()) == 18
