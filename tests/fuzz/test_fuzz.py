"""Damaged files of every kind: a named error or the right result, never a traceback, a hang or nonsense.

`OFA_FUZZ_CASES` is the number of cases, 600 without it; `make fuzz` runs 20,000.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fuzzed_artefacts import Artefact, Result, make_artefacts
from fuzzed_compressions import compression_artefacts
from fuzzed_models import model_artefacts
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from mutations import (
    BYTE_KINDS,
    PLACE_KINDS,
    TENSOR_KINDS,
    VALUE_KINDS,
    Draw,
    damaged_bytes,
    damaged_json,
    damaged_lines,
    damaged_tensors,
    damaged_yaml,
    move_away,
)

from ofa.common.display import MAX_TEXT, printable_text
from ofa.common.errors import UserError

NUM_CASES = int(os.environ.get("OFA_FUZZ_CASES", "600"))
SEED = int(os.environ.get("OFA_FUZZ_SEED", "0"))
REPORT = os.environ.get("OFA_FUZZ_REPORT")
"""File that gets a line of JSON per artefact: the numbers of errors and right results by kind of damage."""

MAX_SECONDS = 30
NAMES = (
    *("checkpoint", "older checkpoint", "signed checkpoint", "teacher", "signed teacher"),
    *("supernet", "signed supernet", "supernet.json", "predictor", "signed predictor", "predictor.json"),
    *("records", "table", "unfinished table", "search result", "configuration"),
    *("card", "weights", "signed weights", "engine file", "card of an engine"),
    *("kit manifest", "signed kit manifest", "kit results"),
    *("published checkpoint", "published predictor", "imported predictor", "imported predictor.json"),
    *("published table", "published network", "published run.config"),
    *("model.json", "signed model.json", "model", "card of a model", "signed card of a model"),
    *("compression on a card", "shapes on a card", "plan of a compression", "harms of a compression"),
    *("trained ranges", "shapes of a compression", "narrow network"),
    *("record of a compression", "record of a pruning"),
)
VALUE_DAMAGE = {
    "json": damaged_json,
    "lines": damaged_lines,
    "yaml": damaged_yaml,
    "tensors": damaged_tensors,
}


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    root = tmp_path_factory.mktemp("artefacts")
    own = (*model_artefacts(root / "model"), *compression_artefacts(root / "compression"))
    return {artefact.name: artefact for artefact in (*make_artefacts(root), *own)}


@pytest.fixture(scope="session")
def intact(artefacts: dict[str, Artefact]) -> dict[str, Result]:
    return {name: artefact.read(artefact.folder) for name, artefact in artefacts.items()}


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"reading takes more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damage(artefact: Artefact, copy: Path, foreign: bytes, draw: Draw) -> str:
    """Damage the file of a copy, and return the kind of damage."""
    path = copy / artefact.file
    value_kinds = TENSOR_KINDS if artefact.content == "tensors" else VALUE_KINDS
    groups: list[tuple[str, ...]] = [BYTE_KINDS] if artefact.sign else [BYTE_KINDS, BYTE_KINDS, PLACE_KINDS]
    groups += [value_kinds] * (3 * (artefact.content in VALUE_DAMAGE))
    kind: str = draw(st.sampled_from(draw(st.sampled_from(groups))))
    if kind in PLACE_KINDS:
        move_away(path, kind)
    elif kind in BYTE_KINDS:
        path.write_bytes(damaged_bytes(path.read_bytes(), kind, foreign, draw))
    else:
        path.write_bytes(VALUE_DAMAGE[artefact.content](path.read_bytes(), kind, draw))
    if artefact.sign is not None:
        try:
            artefact.sign(copy)
        except Exception:  # What cannot be read cannot be signed.
            kind += ", unsigned"
    return kind


def problems(value: Any) -> Iterator[str]:
    """Yield what no value of a result may be: a number that is not finite, a text that acts on a terminal."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{value} as a result"
    elif isinstance(value, str) and printable_text(value) != value:
        yield f"control characters in {value[:100]!r}"
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            yield from problems(name)
            yield from problems(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from problems(entry)


def outcome(artefact: Artefact, copy: Path, expected: Result, kind: str) -> str:
    """Read a damaged copy, and return what came of it; anything but the two permitted outcomes is raised."""
    try:
        with time_limit():
            result = artefact.read(copy)
    except UserError as error:
        assert str(error) and len(str(error)) <= MAX_TEXT and not list(problems(str(error)))
        return "error"
    assert list(problems(result)) == []
    if kind == "missing" and result == artefact.missing:
        return "right"
    for right in (expected, *artefact.others):
        if all(result[name] == right[name] for name in artefact.exact):
            return "right" if result == right else "other legal values"
    raise AssertionError(f"wrong values were taken: {str(result)[:300]}")


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_named_or_does_no_harm(
    name: str, artefacts: dict[str, Artefact], intact: dict[str, Result]
) -> None:
    artefact, outcomes = artefacts[name], Counter[str]()
    foreign_files = [other.folder / other.file for other in artefacts.values() if other.file != artefact.file]

    @seed(SEED)
    @settings(
        max_examples=max(NUM_CASES // len(NAMES), 1),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as place:
            copy = Path(shutil.copytree(artefact.folder, Path(place) / "runs" / "run"))
            foreign = data.draw(st.sampled_from(foreign_files)).read_bytes()
            kind = damage(artefact, copy, foreign, data.draw)
            try:
                outcomes[f"{kind}: {outcome(artefact, copy, intact[name], kind)}"] += 1
            except BaseException as error:
                outcomes[f"{kind}: FAILED"] += 1
                error.add_note(f"damage: {kind}")
                raise

    try:
        check()
    finally:
        if REPORT:
            with Path(REPORT).open("a") as file:
                file.write(json.dumps({"artefact": name, **dict(sorted(outcomes.items()))}) + "\n")
    assert sum(outcomes.values()) >= 1


def test_every_artefact_is_damaged(artefacts: dict[str, Artefact]) -> None:
    assert tuple(artefacts) == NAMES
