"""Folders that cannot be written and disks that are too full are found before the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ofa.common.disk import check_free_space, check_writable, size_text
from ofa.common.errors import UserError


def test_sizes_have_two_digits_and_a_unit() -> None:
    sizes = {1: "1 kB", 12_345: "12 kB", 213_400_000: "210 MB", 1.26e9: "1.3 GB", 9.96e6: "10 MB"}
    assert {number: size_text(number) for number in sizes} == sizes


def test_a_folder_that_can_be_written_is_made_and_stays_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Could not write into .*/file/deep: .*nothing was changed"):
        check_writable(tmp_path / "file" / "deep")

    def refuse(path: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=r"Read-only file system"):
        check_writable(tmp_path)


def test_too_little_room_names_what_is_needed_and_free(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_free_space(tmp_path / "new" / "deep", 1e3, "the training")
    with pytest.raises(
        UserError,
        match=r"too little room in .*/new: the training needs up to [\d.e+]+ GB, [\d.]+ GB are free",
    ):
        check_free_space(tmp_path / "new", 3 * free, "the training")
    assert not (tmp_path / "new").exists()
    # What is there already counts as a part of it.
    (tmp_path / "old").write_bytes(b"0" * 5000)
    check_free_space(tmp_path, 5000, "it", [tmp_path / "old", tmp_path / "missing"])
