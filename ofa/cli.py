"""The console command `ofa`: every script as a sub-command, e.g. `ofa search device=my_cpu`."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence

from ofa.common.errors import unknown_name
from ofa.common.shipped import SCRIPTS

COMMANDS = {
    "find": "find_networks",
    "quickstart": "quickstart",
    "train": "train_supernet",
    "collect": "collect_accuracy",
    "fit": "fit_predictor",
    "measure": "build_latency_table",
    "search": "search_for_device",
    "export": "export_subnet",
    "evaluate": "evaluate_subnet",
    "classify": "classify",
    "finetune": "finetune_subnet",
    "report": "report_run",
    "kit": "make_device_kit",
    "import-supernet": "import_checkpoint",
    "import-network": "import_network",
    "import-predictor": "import_predictor",
    "import-table": "import_latency_table",
    "export-table": "export_latency_table",
}
"""The script of each sub-command, in the order of the pipeline."""

_USAGE = """\
usage: ofa COMMAND [NAME=VALUE ...]

Train one elastic network, then give every device its own sub-network.

{commands}

ofa COMMAND --help lists the settings of a command; -m runs it for several values (seed=0,1).
Several processes: torchrun --nproc-per-node=2 -m ofa train ...
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command as its script would run, and return the exit status.

    Args:
        arguments: name of the sub-command and its settings; None for those of the process.
    """
    name, *settings = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h", "help"):
        sys.stdout.write(usage())
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"error: {unknown_name('command', name, COMMANDS)}\n")
        return 2
    script = COMMANDS[name]
    sys.path.insert(0, str(SCRIPTS))
    command = getattr(importlib.import_module(script), script)
    sys.argv = [f"ofa {name}", *settings]
    command()
    return 0


def usage() -> str:
    """Return the text of `ofa --help`: every sub-command with the first sentence of its script."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary(script)}" for name, script in COMMANDS.items()]
    return _USAGE.format(commands="\n".join(lines))


def summary(script: str) -> str:
    """Return what a script does, from the first line of its docstring, without the example."""
    tree = ast.parse((SCRIPTS / f"{script}.py").read_text())
    first_line = (ast.get_docstring(tree) or "").splitlines()[0]
    return first_line.split(", e.g.")[0].rstrip(".")
