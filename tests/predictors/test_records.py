"""Record files: resuming after a kill, refusing what does not belong, clear errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec
from ofa.space.subnet import SubnetConfig
from predictors.records import RecordFile

PROVENANCE = {"checkpoint": "abc123", "validation": "digits, 300 images, seed 0"}


def make_space(name: str = "small", channels: int = 8) -> StagedSpace:
    stage = StageSpec(channels, 2, (1, 2), (3, 5), (2, 3), "relu", False)
    return StagedSpace(name, "mobilenet_v3", (8, 16), 8, 1, (stage,), (16, 16), num_classes=4)


def make_configs(space: StagedSpace) -> list[SubnetConfig]:
    """Return four different networks."""
    return [
        space.smallest,
        space.restrict({"resolution": [16]}).smallest,
        space.restrict({"resolution": [8]}).largest,
        space.largest,
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records" / "accuracy.jsonl"


def fill(path: Path, space: StagedSpace, count: int) -> RecordFile:
    records = RecordFile.open(path, space, PROVENANCE)
    for i, config in enumerate(make_configs(space)[:count]):
        records.append(config, 0.5 + 0.1 * i)
    return records


def test_records_come_back_exactly_and_in_order(path: Path) -> None:
    space = make_space()
    records = RecordFile.open(path, space, PROVENANCE)
    values = [1 / 3, 0.0, 1.0, np.float64(2 / 7)]
    for config, value in zip(make_configs(space), values, strict=True):
        records.append(config, value)
    read = RecordFile.read(path, space)
    configs, top1 = read.configs, read.values
    assert configs == make_configs(space) == records.configs
    assert top1.dtype == np.float64
    assert top1.tolist() == values == records.values.tolist()
    header = read.header
    assert (header.space, header.fingerprint, header.provenance) == ("small", space.fingerprint, PROVENANCE)


def test_each_line_is_plain_json_as_documented(path: Path) -> None:
    space = make_space()
    fill(path, space, 1)
    header, record = [json.loads(line) for line in path.read_text().splitlines()]
    assert header == {
        "schema_version": 1,
        "space": "small",
        "fingerprint": space.fingerprint,
        "provenance": PROVENANCE,
        "metric": {
            "name": "top1",
            "title": "top-1",
            "higher_is_better": True,
            "is_fraction": True,
            "counts_images": True,
        },
    }
    assert record == {"subnet": space.smallest.to_dict(), "id": space.smallest.id, "top1": 0.5}


def test_append_is_on_disk_before_the_file_is_closed(path: Path) -> None:
    space = make_space()
    records = fill(path, space, 2)
    assert len(RecordFile.read(path, space)) == len(records) == 2


def test_a_file_cut_at_any_byte_of_its_last_line_resumes(path: Path) -> None:
    space = make_space()
    configs = make_configs(space)
    fill(path, space, 2)
    kept = path.stat().st_size
    fill_more = RecordFile.open(path, space, PROVENANCE)
    fill_more.append(configs[2], 0.7)
    content = path.read_bytes()
    for length in range(kept, len(content)):
        path.write_bytes(content[:length])
        assert RecordFile.read(path, space).configs == configs[:2]
        assert path.stat().st_size == length, "reading must not change the file"
        records = RecordFile.open(path, space, PROVENANCE)
        assert path.stat().st_size == kept
        assert configs[2] not in records
        records.append(configs[2], 0.7)
        assert path.read_bytes() == content


def test_an_empty_file_is_started_anew(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    fill(path, make_space(), 1)
    assert len(RecordFile.read(path, make_space())) == 1


def test_duplicates_and_values_that_are_no_fractions_are_refused(path: Path) -> None:
    space = make_space()
    records = fill(path, space, 1)
    before = path.read_bytes()
    with pytest.raises(UserError, match="already"):
        records.append(space.smallest, 0.9)
    for value in (97.5, -0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected a fraction from 0 to 1"):
            records.append(space.largest, value)
    assert path.read_bytes() == before
    assert space.largest not in records


def test_a_file_of_another_space_is_refused_with_both_names(path: Path) -> None:
    fill(path, make_space(), 1)
    before = path.read_bytes()
    other = make_space("wide", channels=16)
    attempts: list[Callable[[], RecordFile]] = [
        lambda: RecordFile.open(path, other, PROVENANCE),
        lambda: RecordFile.read(path, other),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match=r"'small'.*'wide'"):
            attempt()
    assert path.read_bytes() == before


def test_a_restricted_space_shares_the_records_of_the_whole_one(path: Path) -> None:
    space = make_space()
    fill(path, space, 4)
    restricted = space.restrict({"resolution": [8]})
    assert len(RecordFile.read(path, restricted)) == 4
    assert len(RecordFile.open(path, restricted, PROVENANCE)) == 4


def test_other_provenance_is_refused_with_both_values(path: Path) -> None:
    fill(path, make_space(), 1)
    wanted = PROVENANCE | {"checkpoint": "def456", "images": "2"}
    with pytest.raises(
        UserError, match=r"checkpoint was 'abc123' and is 'def456'; images was None and is '2'"
    ):
        RecordFile.open(path, make_space(), wanted)


def test_a_missing_file_names_the_command(path: Path) -> None:
    with pytest.raises(UserError, match="No accuracy records at") as caught:
        RecordFile.read(path, make_space())
    assert caught.value.stage == "collect"


@pytest.mark.parametrize("content", ["hello\n", "[1, 2]\n", '{"space": "small"}\n', "no line break"])
def test_a_foreign_file_is_refused_and_kept(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(UserError, match="not a file of accuracy records"):
        RecordFile.open(path, make_space(), PROVENANCE)
    assert path.read_text() == content


def test_another_schema_version_is_refused(path: Path) -> None:
    fill(path, make_space(), 1)
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(UserError, match="schema version 9"):
        RecordFile.read(path, make_space())


def corrupt(line: str, kind: str) -> str:
    values = json.loads(line)
    if kind == "cut":
        return line[: len(line) // 2]
    if kind == "percent":
        values["top1"] = 97.0
    if kind == "text":
        values["top1"] = "0.5"
    if kind == "id":
        values["id"] = "0123456789"
    if kind == "no subnet":
        del values["subnet"]
    if kind == "outside":
        values["subnet"]["resolution"] = 9
    if kind == "list":
        values = [values]
    if kind == "unhashable":
        values["subnet"]["stages"] = [{"kernel_sizes": [[3]], "expand_ratios": [2]}]
    return json.dumps(values)


@pytest.mark.parametrize(
    "kind", ["cut", "percent", "text", "id", "no subnet", "outside", "list", "unhashable"]
)
def test_a_corrupt_middle_line_is_named_by_its_number(path: Path, kind: str) -> None:
    space = make_space()
    fill(path, space, 4)
    lines = path.read_text().splitlines()
    lines[2] = corrupt(lines[2], kind)
    path.write_text("\n".join(lines) + "\n")
    attempts: list[Callable[[], RecordFile]] = [
        lambda: RecordFile.read(path, space),
        lambda: RecordFile.open(path, space, PROVENANCE),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match=r"^Line 3 of .* is corrupt"):
            attempt()


def test_a_repeated_line_is_an_error(path: Path) -> None:
    space = make_space()
    fill(path, space, 2)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(UserError, match=r"Line 4 .*earlier line"):
        RecordFile.read(path, space)


def test_a_failed_write_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = make_space()
    records = fill(path, space, 2)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(UserError, match=r"No space left.*2 records are intact"):
            records.append(space.largest, 0.9)
    assert path.read_bytes() == before
    records.append(space.largest, 0.9)
    assert RecordFile.read(path, space).configs == records.configs
