"""The folder of a run: names stay inside it, and a bundle that was moved aside is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ofa.common.errors import UserError
from ofa.runs.directory import RunDirectory
from ofa.runs.export import export_subnet
from ofa.runs.trained import TrainedRun


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", "", ".hidden", "a\nb"])
def test_names_that_leave_their_folder_are_refused_in_python_too(name: str, tmp_path: Path) -> None:
    directory = RunDirectory(str(tmp_path), "mine")
    methods: list[Callable[[str], object]] = [
        directory.table,
        directory.search,
        directory.kit,
        directory.finetuning,
        directory.new_bundle,
        lambda name: RunDirectory(str(tmp_path), name),
    ]
    for method in methods:
        with pytest.raises(UserError, match="is no (name|run_name): it "):
            method(name)
    run = TrainedRun(directory, *cast(tuple[Any, Any, Any, Any], (None,) * 4))
    with pytest.raises(UserError, match="is no name: it "):
        export_subnet(run, cast(Any, None), name)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_a_killed_export_moved_aside_is_found(tmp_path: Path) -> None:
    directory = RunDirectory(str(tmp_path), "mine")
    (directory.bundles / ".small.0123456789abcdef.old").mkdir(parents=True)
    (directory.bundles / ".large.0123456789abcdef.tmp").mkdir()
    (directory.bundles / ".large.0123456789abcdef.tmp" / "subnet.json").touch()
    assert directory.bundle("small") == directory.bundles / "small"
    (directory.bundles / "small" / "subnet.json").touch()
    with pytest.raises(UserError, match="the run has: small\\."):
        directory.bundle("large")
    (directory.bundles / "small").rename(directory.bundles / ".small.0123456789abcdef.old")
    assert directory.bundle_paths() == [directory.bundles / "small"]
