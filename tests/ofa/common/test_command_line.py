"""Commands in texts can be copied into a shell, whatever their values hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ofa.common.command_line import command_line


@pytest.mark.parametrize("name", ["mine", "my run (2)", "it's", "$HOME", 'a"b', "a;b", "größe"])
def test_a_shell_reads_what_was_written(name: str) -> None:
    line = command_line("search", {"run_name": name, "resolutions": "[16,24]", "device": None})
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    shell = f'ofa() {{ {sys.executable} -c "{program}" "$@"; }}; {line}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["search", f"run_name={name}", "resolutions=[16,24]"]
