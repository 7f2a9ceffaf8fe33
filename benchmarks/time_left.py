"""The time left that commands print, against the time that came.

Runs a pipeline on the digits, or with the settings given for a training, and reads the lines of progress as a
user would where the output is a file. For each command: how many lines after a tenth of the work named a time
within a factor of 1.5 of what came, the worst factors, and the seconds until the first word.

Run: python benchmarks/time_left.py FOLDER [SETTINGS of the training] [--commands train collect …]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"(\d+) % .*?, (?:(\d+) h )?(?:(\d+) min )?(?:(\d+) s )?left")
FACTOR, FIRST_SHARE, LEAST_S = 1.5, 10, 5.0
SETTINGS = {
    "train": (),
    "collect": ("count=150",),
    "fit": (),
    "measure": ("device.minutes=2", "device.processes=1", "max_table_error=1000"),
    "export": ("subnet=largest", "formats=[onnx,pt2]"),
}
# Lines every second instead of every 20 seconds.
PROGRAM = """
import sys, ofa.common.cli, ofa.common.progress
ofa.common.progress.LINE_INTERVAL_S = 1.0
sys.exit(ofa.common.cli.main(sys.argv[1:]))
"""


def timed_lines(folder: Path, arguments: list[str]) -> tuple[list[tuple[float, str]], float]:
    """Run a command and return its lines with the seconds since its start, and the seconds of the whole."""
    start_s, lines = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - start_s, line.rstrip()))
    if process.returncode:
        sys.exit("\n".join(line for _, line in lines[-5:]))
    return lines, time.monotonic() - start_s


def factors(lines: list[tuple[float, str]]) -> list[float]:
    """Return by which factor each time left was wrong, from a tenth of the work on and above some seconds."""
    named = [(seconds, match) for seconds, line in lines if (match := LINE.search(line))]
    if not named:
        return []
    # The bar is full when the work is done.
    end_s = next((seconds for seconds, match in named if int(match[1]) == 100), named[-1][0])
    result = []
    for seconds, match in named:
        hours, minutes, rest = (int(text or 0) for text in match.groups()[1:])
        said_s, left_s = 3600.0 * hours + 60.0 * minutes + rest, end_s - seconds
        if FIRST_SHARE <= int(match[1]) < 100 and left_s >= LEAST_S:
            result.append(max(said_s, 1.0) / left_s)
    return result


def main() -> None:
    """Run the commands and print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Time left, said and come.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commands", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("settings", nargs="*", help="settings of the training")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| command | seconds | first word after | times left | within 1.5 | smallest | largest factor |")
    print("|---|---|---|---|---|---|---|")
    for command in arguments.commands:
        more = arguments.settings if command == "train" else []
        settings = [command, "run_name=timed", *SETTINGS[command], *more]
        lines, whole_s = timed_lines(arguments.folder, settings)
        wrong = factors(lines)
        inside = sum(1 / FACTOR <= factor <= FACTOR for factor in wrong)
        ends = f"{min(wrong):.2f} | {max(wrong):.2f}" if wrong else "- | -"
        print(
            f"| {command} | {whole_s:.0f} | {lines[0][0]:.1f} s | {len(wrong)} | {inside} | {ends} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
