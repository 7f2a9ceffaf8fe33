"""Kills every stage at its file operations and starts it again, or starts it twice at once; a script.

    python tests/helpers/crash_check.py FOLDER [--stages export fit] [--cases 3]

Each line of the output is a JSON object: the stage, the number of its operations, at how many of them it was
killed, and the problems. See `crash` for what counts as an operation, and `crash_stages` for the stages.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from at_once import PAIRS, pair_problems, refusal_problems, unwritable_problems
from crash import content_of, fresh, in_child, killed_at, operations, tree
from crash_stages import STAGES, load_everything, prepare

from ofa.common.errors import UserError
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from predictors.load import load_predictor


def check_stage(name: str, base: Path, folder: Path, num_cases: int | None) -> dict[str, object]:
    """Kill a stage at `num_cases` of its operations, spread evenly, or at all; return what was seen."""
    work, log, stage = folder / "work", folder / "log", STAGES[name]
    fresh(base, work)
    events = operations(lambda: stage.run(work), work, log)
    before, after = tree(base), tree(work)
    count = min(num_cases or len(events), len(events))
    # Few cases fall on other moments in every stage.
    offset = 0.618 * list(STAGES).index(name) % 1
    numbers = [1 + int((case + offset) * len(events) / count) for case in range(count)]
    problems, num_named = [], 0
    for number in numbers:
        fresh(base, work)
        killed_at(number, lambda: stage.run(work), work, log)
        place = f"operation {number} of {len(events)}, {events[number - 1]}"
        problems += [f"{place}: after the kill, {text}" for text in lost(work, before, after)]
        num_named += has_named_error(work)
        log.unlink()
        if status := in_child(lambda: stage.run(work), log):
            problems.append(f"{place}: the same command ends with {status}: {log.read_text()[-600:]}")
            continue
        problems += [f"{place}: after the same command, {text}" for text in differences(tree(work), after)]
    return {
        "stage": name,
        "operations": len(events),
        "killed": len(numbers),
        "named errors in between": num_named,
        "problems": problems,
        "twice": refusal_problems(name, 3 * len(events) // 5, base, folder, after),
        "read-only": unwritable_problems(name, base, folder),
    }


def lost(work: Path, before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return what is wrong with the files that were there before: each has to be whole, old or new."""
    texts = []
    for name, old in before.items():
        path = work / name
        if old is None or name not in after:
            continue
        if not path.is_file():
            texts.append(f"{name} is missing")
            continue
        try:
            content = content_of(path)
        except Exception as error:
            texts.append(f"{name} is damaged: {error}")
            continue
        is_part = isinstance(old, list) and isinstance(content, list) and content[: len(old)] == old
        if content not in (old, after[name]) and not is_part:
            texts.append(f"{name} is neither old nor new")
    return texts


def has_named_error(work: Path) -> bool:
    """Return whether a reader gets a named error, because of a pair with one new file; others are raised."""
    run = RunDirectory(str(work / "runs"), "run")
    try:
        _, info = load_supernet(run.supernet)
        load_predictor(run.predictor, info.space)
    except UserError:
        return True
    return False


def differences(found: dict[str, object], expected: dict[str, object]) -> list[str]:
    """Return what differs between two trees."""
    left = [f"{name} is left over" for name in found.keys() - expected.keys()]
    missing = [f"{name} is missing" for name in expected.keys() - found.keys()]
    common = found.keys() & expected.keys()
    return sorted([*left, *missing, *(f"{n} differs" for n in common if found[n] != expected[n])])


def main() -> None:
    """Check the chosen stages."""
    parser = argparse.ArgumentParser(description="Killed stages.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--cases", type=int, help="operations to kill at per stage; default: all")
    arguments = parser.parse_args()
    base, log = arguments.folder / "base", arguments.folder / "log"
    base.mkdir(parents=True)
    load_everything()
    if in_child(lambda: prepare(base), log):
        sys.exit(log.read_text())
    for name in arguments.stages:
        print(json.dumps(check_stage(name, base, arguments.folder, arguments.cases)), flush=True)
    for names in PAIRS:
        if set(names) <= set(arguments.stages):
            problems = pair_problems(names, base, arguments.folder)
            print(json.dumps({"stage": " ".join(names), "problems": problems}), flush=True)


if __name__ == "__main__":
    main()
