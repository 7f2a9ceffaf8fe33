"""Commands in texts can be copied into a shell, whatever their values hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ofa.common.command_line import command_line

NAMES = [
    *("mine", "my run (2)", "it's", "$HOME", 'a"b', "a;b", "größe", "a=b", "a,b", "{a}", "back\\slash"),
    *('end\\"', "end\\", "#1", " spaces "),
]


@pytest.mark.parametrize("name", NAMES)
def test_shell_and_settings_read_what_was_written(name: str) -> None:
    line = command_line("search", {"run_name": name, "resolutions": "[16,24]", "device": None})
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    shell = f"ofa() {{ {sys.executable} -c '{program}' \"$@\"; }}; {line}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    stage, *settings = json.loads(done.stdout)
    values = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(settings)}
    assert stage == "search"
    assert str(values.pop("run_name")) == name
    assert values == {"resolutions": [16, 24]}
