"""Tests of ofa.common.files."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ofa.common.errors import UserError
from ofa.common.files import write_atomic, write_json
from ofa.common.reading import read_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writing beyond `size` bytes fail, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.txt"
    for text in ("one", "two"):
        write_atomic(path, lambda temporary, text=text: temporary.write_text(text))  # type: ignore[misc]
        assert path.read_text() == text
    assert names(path.parent) == ["file.txt"]


def test_write_goes_to_another_name_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert temporary.parent == path.parent and path.read_text() == "old"

    with path.open() as opened_before:
        write_atomic(path, write)
        # Renamed, not written over: whoever has the old file open still reads all of it.
        assert opened_before.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), TypeError("x")]
)
def test_a_failure_midway_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error

    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        write_atomic(path, write)
    if isinstance(error, OSError):
        assert "file.txt" in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_full_disk_while_torch_saves_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(torch.zeros(3), path)
    with pytest.raises(UserError, match=r"Could not write .*weights\.pt"), largest_file(100_000):
        write_atomic(path, lambda temporary: torch.save(torch.zeros(1_000_000), temporary))
    assert torch.equal(torch.load(path), torch.zeros(3)) and names(tmp_path) == ["weights.pt"]


def test_other_runtime_errors_are_not_hidden(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_atomic(tmp_path / "file", write)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_exist_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Could not write"):
        write_json(tmp_path / "file" / "values.json", {})


def test_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json(path, {"a": [1, 2.5, None], "b": {"c": "ä"}})
    assert read_json(path, "table") == {"a": [1, 2.5, None], "b": {"c": "ä"}}


def test_missing_truncated_or_wrong_json_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    with pytest.raises(UserError, match=r"No latency table at .*values\.json\. Do this\.") as caught:
        read_json(path, "latency table", "measure", "Do this.")
    assert caught.value.stage == "measure"
    for content, problem in (
        (b'{"a": [1, 2', "is truncated: it ends in line 1 before"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "is not valid JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=problem) as caught:
            read_json(path, "latency table", "measure")
        assert caught.value.stage == "measure"
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match="holds a list; expected a JSON object"):
        read_json(path, "latency table")
