"""What a container allows is what counts, whichever version its control groups have."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.common.machine import available_memory_bytes, num_free_files, num_processors

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine of 64 GiB, 40 of them free, whose files a test adds to."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {64 * 2**20} kB\nMemAvailable: {40 * 2**20} kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/pods/mine\n")
    write(tmp_path / "proc/self/status", "Name: python\nVmSize: 1048576 kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)


@pytest.mark.usefixtures("four_processors")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4),
        ({"pods/mine/cpu.max": "max 100000\n"}, 4),
        ({"pods/mine/cpu.max": "200000 100000\n"}, 2),
        ({"pods/mine/cpu.max": "max 100000\n", "pods/cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"pods/mine/cpu.max": "900000 100000\n"}, 4),
        ({"pods/mine/cpu.max": "damaged"}, 4),
    ],
)
def test_a_quota_of_processors_counts(files: dict[str, str], expected: int, machine: Path) -> None:
    for name, text in files.items():
        write(machine / "sys/fs/cgroup" / name, text)
    assert num_processors(machine) == expected


@pytest.mark.usefixtures("four_processors")
def test_old_control_groups_count_too(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/x\n")
    # Inside the container its own group is at the top.
    groups = machine / "sys/fs/cgroup"
    write(groups / "cpu" / "cpu.cfs_quota_us", "-1")
    assert num_processors(machine) == 4
    write(groups / "cpu" / "cpu.cfs_quota_us", "100000\n")
    write(groups / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert num_processors(machine) == 1
    write(groups / "memory" / "memory.limit_in_bytes", f"{8 * GIB}\n")
    write(groups / "memory" / "memory.usage_in_bytes", f"{5 * GIB}\n")
    write(groups / "memory" / "memory.stat", f"cache 7\ninactive_file {GIB}\n")
    assert available_memory_bytes(machine) == 4 * GIB


def test_the_smallest_amount_of_memory_counts(machine: Path) -> None:
    assert available_memory_bytes(machine) == 40 * GIB
    group = machine / "sys/fs/cgroup/pods/mine"
    write(group / "memory.max", "max\n")
    write(group / "memory.current", f"{3 * GIB}\n")
    write(group / "memory.stat", "anon 1\n")
    assert available_memory_bytes(machine) == 40 * GIB
    write(group / "memory.max", f"{4 * GIB}\n")
    assert available_memory_bytes(machine) == GIB
    write(group / "memory.current", f"{9 * GIB}\n")
    assert available_memory_bytes(machine) == 0


def test_the_limit_of_the_address_space_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3 * GIB, 3 * GIB))
    assert available_memory_bytes(machine) == 2 * GIB


def test_nothing_is_known_without_the_files(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) is None
    assert num_processors(tmp_path) >= 1


PROGRAM = """
import resource
from ofa.common.machine import allow_open_files, num_free_files
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 100))
before = num_free_files()
allow_open_files()
print(before, num_free_files())
"""


def test_as_many_files_can_be_opened_as_are_allowed(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert 30 < before < 50 and after == before + 50
    assert num_free_files() > 0
