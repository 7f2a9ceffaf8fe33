"""Tables of images: which texts are read, and what is said about those that cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from image_tables import settings, write_table

from ofa.common.errors import UserError
from ofa.data.table import Table, find_table, read_table
from ofa.data.table_targets import read_labels, read_numbers


def table_of(folder: Path, *lines: str) -> Table:
    return read_table(settings(write_table(folder, lines)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_texts_of_all_programs_are_read(tmp_path: Path, encoding: str, mark: str) -> None:
    lines = ["File, größe ,split", "a.png, 1 ,Train", "", '"b, c.png",2,val', " , , "]
    if mark != ",":
        lines = [line.replace(",", mark) for line in lines]
    table = read_table(settings(write_table(tmp_path, lines, encoding=encoding)))
    assert table.columns == ("größe",) and table.cells == [("1",), ("2",)]
    assert table.files == ["a.png", "b, c.png" if mark == "," else f"b{mark} c.png"]
    assert table.splits == ["train", "validation"] and table.lines == [2, 4]


def test_labels_have_a_column_each_or_one_for_all(tmp_path: Path) -> None:
    columns = read_labels(table_of(tmp_path / "a", "file,dog,cat", "1,0,1", "2,,1.0", "3,-1,0"))
    assert columns.names == ("dog", "cat") and columns.values.tolist() == [[0, 1], [-1, 1], [-1, 0]]
    listed = read_labels(table_of(tmp_path / "b", "file,labels", "1,dog|cat", "2,cat ; ", "3,"))
    assert listed.names == ("cat", "dog") and listed.values.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert not columns.problems + listed.problems and columns.values.dtype == torch.int8


def test_numbers_are_any_that_are_finite(tmp_path: Path) -> None:
    numbers = read_numbers(table_of(tmp_path, "file,x,y", "1,-2.5,1e3", "2,,7"))
    assert numbers.names == ("x", "y") and not numbers.problems
    assert numbers.values[0].tolist() == [-2.5, 1000.0] and math.isnan(numbers.values[1, 0])


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([""], "is empty; expected a column 'file'"),
        (["file,x"], "has no row below its first line"),
        (["path,x", "a,1"], "there are 'path', 'x'; expected a column 'file' and at least one more"),
        (["file,split", "a,train"], "there are 'file', 'split'; expected a column 'file' and at least"),
        (["file,x,x", "a,1,2"], "'x' stands there 2 times"),
        (["file,,x", "a,1,2"], "the column 2 has no name"),
        (["file,FILE,x", "a,1,2"], "'file' stands there 2 times"),
        (["file,x", "a,1,2", "b"], r"do not have 2 cells, as the first has \(2\):\n  line 2: 3 cells"),
        (["file,x", 'a,"1'], "line 2, is no line of a CSV file"),
        (["file,x,split", "a,1,learn"], "Rows with no known split .*\n  line 2, a: 'learn'"),
        (["file,x,split", "a,1,"], "Rows with no known split"),
        (["file,x,split", "a,1,test"], "No row has the split train"),
    ],
)
def test_what_is_no_such_table_is_named(tmp_path: Path, lines: Sequence[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        table_of(tmp_path, *lines)


@pytest.mark.parametrize(
    ("kind", "lines", "text"),
    [
        ("labels", ["file,x", "a,2"], "Cells that are no label .*\n  line 2, a, x: '2'\nExpected 0 or 1"),
        ("labels", ["file,x", "a,yes"], "line 2, a, x: 'yes'"),
        ("labels", ["file,labels", "a, | "], "lists no label at all"),
        ("numbers", ["file,x", "a,nan"], "Cells that are no finite number .*\n  line 2, a, x: 'nan'"),
        ("numbers", ["file,x", "a,1e999"], "line 2, a, x: '1e999'"),
        ("numbers", ["file,x", 'a,"1,5"'], "line 2, a, x: '1,5'"),
    ],
)
def test_cells_that_tell_nothing_are_named(
    tmp_path: Path, kind: str, lines: Sequence[str], text: str
) -> None:
    targets = {"labels": read_labels, "numbers": read_numbers}[kind](table_of(tmp_path, *lines))
    assert re.search(text, "\n".join(targets.problems))


def test_the_only_table_is_found_and_others_are_chosen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs its folder"):
        find_table(settings(tmp_path).__class__("multi_label_folder"))
    with pytest.raises(UserError, match=r"is not a folder; expected images and a CSV file inside"):
        find_table(settings(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="has no CSV file; expected a column 'file'"):
        find_table(settings(tmp_path))
    write_table(tmp_path, ["file,x", "a,1"], "A.CSV")
    assert find_table(settings(tmp_path)).name == "A.CSV"
    write_table(tmp_path, ["file,x", "a,1"], "b.csv")
    with pytest.raises(UserError, match=r"has 2 CSV files \(A.CSV, b.csv\); choose one with data.table=NAME"):
        find_table(settings(tmp_path))
    assert find_table(settings(tmp_path, table="b.csv")) == tmp_path / "b.csv"
    with pytest.raises(UserError, match="No table at"):
        read_table(settings(tmp_path, table="c.csv"))
    (tmp_path / "b.csv").write_bytes(b"file,x\na,\xff\n")
    with pytest.raises(UserError, match="b.csv cannot be read: 'utf-8' codec"):
        read_table(settings(tmp_path, table="b.csv"))
