"""The algorithms are those of the folder's files, each under the name of its record."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from search.algorithms import random_search
from search.algorithms.registry import ALGORITHMS, collect_algorithms


def module_with(record: object) -> ModuleType:
    module = ModuleType("mine")
    module.__dict__["ALGORITHM"] = record
    return module


def test_every_file_with_a_record_is_registered(root: Path) -> None:
    folder = root / "search" / "algorithms"
    files = [path for path in folder.glob("*.py") if "\nALGORITHM = " in path.read_text()]
    assert len(ALGORITHMS) == len(files)
    assert {"evolution", "pareto", "random"} <= set(ALGORITHMS)


def test_modules_without_a_record_are_passed_over() -> None:
    record = random_search.ALGORITHM
    assert collect_algorithms([ModuleType("helpers"), module_with(record)]) == {"random": record}


def test_two_records_of_one_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="mine: a second 'random'"):
        collect_algorithms([random_search, module_with(random_search.ALGORITHM)])


def test_a_record_of_another_kind_is_refused() -> None:
    with pytest.raises(AssertionError, match="mine"):
        collect_algorithms([module_with(random_search.search_randomly)])
