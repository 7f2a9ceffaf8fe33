"""Commands and Python code of the pages: README and docs/."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"^(?:torchrun [^#]*-m )?ofa (?:--processes \d+ )?(.+?)(?: *#.*)?$")


def block_commands(text: str) -> Iterator[list[str]]:
    """Yield the words after `ofa` of every command of the code blocks; shell variables have their values."""
    variables: dict[str, str] = {}
    for language, block in BLOCK.findall(text):
        if language == "python":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if assignment := re.fullmatch(r'([A-Z]+)="(.*)"', line):
                variables[assignment[1]] = assignment[2]
            elif command := COMMAND.match(line):
                words = re.sub(r"\$([A-Z]+)", lambda match: variables[match[1]], command[1])
                yield shlex.split(words)


def span_commands(text: str) -> Iterator[list[str]]:
    """Yield the words after `ofa` of every command that stands in a line of text."""
    for span in SPAN.findall(BLOCK.sub("", text)):
        if (command := COMMAND.match(span)) and not command[1].startswith(("NAME", "--")):
            yield command[1].split()
