"""Every stage that writes, killed and started again, or twice at once: whole, and nothing left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from at_once import PAIRS
from crash_stages import STAGES

CASES = 1
"""Operations of each stage that it is killed at; 0 in the environment's OFA_CRASHES means all of them."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, dict[str, Any]]:
    """What `crash_check` says of each stage; a process of its own, because it forks."""
    num_cases = int(os.environ.get("OFA_CRASHES", CASES))
    program = [sys.executable, str(root / "tests" / "helpers" / "crash_check.py")]
    cases = ["--cases", str(num_cases)] if num_cases else []
    done = subprocess.run(
        [*program, str(tmp_path_factory.mktemp("crashes")), *cases],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'scripts'}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["stage"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_the_same(stage: str, reports: dict[str, dict[str, Any]]) -> None:
    assert reports[stage]["problems"] == []
    assert reports[stage]["operations"] >= 10


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_at_work_refuses_the_same_stage_by_name(
    stage: str, reports: dict[str, dict[str, Any]]
) -> None:
    assert reports[stage]["twice"] == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_finds_out_before_its_work_that_it_cannot_write(
    stage: str, reports: dict[str, dict[str, Any]]
) -> None:
    assert reports[stage]["read-only"] == []


@pytest.mark.slow
@pytest.mark.parametrize("stages", [" ".join(names) for names in PAIRS])
def test_stages_that_meet_in_a_folder_do_not_mix(stages: str, reports: dict[str, dict[str, Any]]) -> None:
    assert reports[stages]["problems"] == []
