"""Damage to files: of their bytes, of the values in them, and of what stands at their place."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from torch import Tensor

Draw = Callable[[st.SearchStrategy[Any]], Any]

LITERAL = "@literal@"

WRONG_LITERALS = {
    "NaN": "NaN",
    "infinite": "Infinity",
    "overflow": "1e999",
    "long": "9" * 5000,
    "deep": "[" * 100_000 + "]" * 100_000,
    "deeper object": '{"a":' * 3000 + "1" + "}" * 3000,
}
"""JSON texts that Python's writer does not write."""

WRONG_VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", "nan", "1", 0, -1, 1.5, 10**9, 10**25, -1e300, 1e300, 1e-320),
    *([], {}, [None], [[]], {"": ""}, {"a": {"b": 1}}, "\x1b[2J\x1b]0;x\x07", "\u202e\ud800", "x" * 100_000),
    *("../../etc/passwd", "/etc/passwd", "; touch PWNED #", [1] * 1000, ["a", 1, None]),
)
"""Values that hardly any entry may have."""

BYTE_KINDS = ("truncate", "empty", "flip", "flip many", "zeros", "twice", "insert", "foreign", "cut middle")
VALUE_KINDS = ("wrong value", "literal", "remove", "add", "nest", "rename", "swap", "control")
PLACE_KINDS = ("missing", "folder", "dangling", "circle", "outside", "pipe")
TENSOR_KINDS = (
    *("nan", "huge", "bool", "int64", "sparse", "shape", "none", "text", "complex", "expanded", "half"),
    *("remove", "add", "deep", "self", "key", "infinite number"),
)


def damaged_bytes(content: bytes, kind: str, foreign: bytes, draw: Draw) -> bytes:
    """Return the content of a file, damaged in one of `BYTE_KINDS`."""
    size = len(content)
    position: int = draw(st.integers(0, max(size - 1, 0)))
    if kind == "truncate":
        return content[:position]
    if kind == "empty":
        return b""
    if kind in ("flip", "flip many"):
        changed = bytearray(content)
        for _ in range(1 if kind == "flip" else draw(st.integers(2, 40))):
            if changed:
                changed[draw(st.integers(0, size - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if kind == "zeros":
        length = draw(st.integers(1, 64))
        return content[:position] + bytes(min(length, size - position)) + content[position + length :]
    if kind == "twice":
        return content + content
    if kind == "insert":
        inserted: bytes = draw(st.binary(min_size=1, max_size=20))
        return content[:position] + inserted + content[position:]
    if kind == "cut middle":
        return content[:position] + content[position + draw(st.integers(1, 200)) :]
    return foreign


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a structure of lists and mappings."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in pairs:
        yield (*prefix, name)
        yield from paths_of(entry, (*prefix, name))


def damaged_values(values: Any, kind: str, draw: Draw) -> tuple[Any, str]:
    """Return plain values, damaged in one of `VALUE_KINDS` at a random path, and a text for `LITERAL`."""
    values = copy.deepcopy(values)
    paths = list(paths_of(values))
    # Paths near the root are few, and matter as much.
    shallow = [path for path in paths if len(path) == 1]
    path = draw(st.sampled_from(shallow) | st.sampled_from(paths))
    *parents, name = path
    parent = values
    for step in parents:
        parent = parent[step]
    literal = ""
    if kind == "wrong value":
        parent[name] = draw(st.sampled_from(WRONG_VALUES))
    elif kind == "literal":
        parent[name], literal = LITERAL, WRONG_LITERALS[draw(st.sampled_from(sorted(WRONG_LITERALS)))]
    elif kind == "remove":
        del parent[name]
    elif kind == "add":
        target = parent[name] if isinstance(parent[name], dict) else values
        if isinstance(target, dict):
            target[draw(st.sampled_from(["x", "", "\x1b[31m", "k" * 1_000_000]))] = 1
        else:
            target.append(None)
    elif kind == "nest":
        parent[name] = [parent[name]]
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{name}\x1b[0m"] = parent.pop(name)
    elif kind == "swap":
        *others, other_name = draw(st.sampled_from(paths))
        other: Any = values
        for step in others:
            other = other[step]
        parent[name] = copy.deepcopy(other[other_name])
    else:
        parent[name] = f"{parent[name]}\x1b]0;title\x07\x9b2J\u202e"
    return values, literal


def json_text(values: Any, literal: str) -> str:
    return json.dumps(values).replace(json.dumps(LITERAL), literal)


def damaged_json(content: bytes, kind: str, draw: Draw) -> bytes:
    return json_text(*damaged_values(json.loads(content), kind, draw)).encode()


def damaged_lines(content: bytes, kind: str, draw: Draw) -> bytes:
    """Return JSON lines of which one is damaged; see `damaged_values`."""
    lines = content.splitlines()
    number = draw(st.sampled_from(range(min(2, len(lines)))) | st.integers(0, len(lines) - 1))
    lines[number] = damaged_json(lines[number], kind, draw)
    return b"\n".join(lines) + b"\n"


def damaged_yaml(content: bytes, kind: str, draw: Draw) -> bytes:
    values, literal = damaged_values(yaml.safe_load(content), kind, draw)
    literal = {"NaN": ".nan", "Infinity": ".inf"}.get(literal, literal)
    return yaml.safe_dump(values).replace(f"'{LITERAL}'", literal).encode("utf-8", "surrogatepass")


def damaged_tensors(content: bytes, kind: str, draw: Draw) -> bytes:
    """Return a file of `torch.save`, damaged in one of `TENSOR_KINDS`."""
    values = torch.load(io.BytesIO(content), weights_only=True)
    paths = list(paths_of(values))
    tensor_paths = [path for path in paths if isinstance(_at(values, path), Tensor)]
    path = draw(st.sampled_from(tensor_paths if draw(st.booleans()) and tensor_paths else paths))
    *parents, name = path
    parent = _at(values, parents)
    value = parent[name]
    tensor = value if isinstance(value, Tensor) else torch.zeros(3)
    new_values: dict[str, Callable[[], Any]] = {
        "nan": lambda: torch.full_like(tensor.float(), torch.nan),
        "huge": lambda: torch.full_like(tensor.float(), 1e30),
        "bool": lambda: tensor.bool(),
        "int64": lambda: tensor.long() + 1,
        "sparse": lambda: tensor.float().to_sparse(),
        "shape": lambda: tensor.reshape(-1, 1),
        "none": lambda: None,
        "text": lambda: "x\x1b[2J",
        "complex": lambda: tensor.to(torch.complex64),
        "expanded": lambda: torch.zeros(1).expand(1000, 1_000_000_000),
        "half": lambda: tensor.half() if tensor.is_floating_point() else tensor.double(),
        "infinite number": lambda: float("inf"),
        "deep": lambda: _nested(200),
    }
    if kind in new_values:
        parent[name] = new_values[kind]()
    elif kind == "remove":
        del parent[name]
    elif kind == "add":
        values[draw(st.sampled_from(["x", "k" * 1_000_000, "\x1b[31m"]))] = torch.zeros(1)
    elif kind == "self":
        values["self"] = [values]
    else:
        values[7] = values.pop(next(iter(values)))
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _at(values: Any, path: Any) -> Any:
    for step in path:
        values = values[step]
    return values


def move_away(path: Path, kind: str) -> None:
    """Put something else at the place of a file: one of `PLACE_KINDS`."""
    copy_path = path.parent.parent / f"elsewhere-{path.name}"
    shutil.copyfile(path, copy_path)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "outside":
        path.symlink_to(copy_path)
    elif kind == "pipe":
        os.mkfifo(path)
