"""The console command `ofa`: every script as a sub-command, e.g. `ofa search device=my_cpu`."""

from __future__ import annotations

import ast
import importlib
import signal
import sys
from collections.abc import Sequence

from ofa.common.errors import UserError, unknown_name
from ofa.common.exhausted import exhaustion_text
from ofa.common.processes import run_in_processes
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
    "segment": "segment",
    "predict": "predict",
    "finetune": "finetune_subnet",
    "report": "report_run",
    "kit": "make_device_kit",
    "inspect": "inspect_model",
    "prune": "prune_model",
    "compress": "compress_network",
    "import-supernet": "import_checkpoint",
    "import-network": "import_network",
    "import-predictor": "import_predictor",
    "import-table": "import_latency_table",
    "export-table": "export_latency_table",
}
"""The script of each sub-command, in the order of the pipeline."""

_USAGE = """\
usage: ofa [--processes N] COMMAND [NAME=VALUE ...]

Train one elastic network, then give every device its own sub-network.

{commands}

ofa COMMAND --help lists the settings of a command; -m runs it for several values (seed=0,1).
--processes N lets {parallel} work in N processes of this machine.
"""

PARALLEL = ("train", "collect", "finetune")
"""Commands whose work several processes can share."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command as its script would run, and return the exit status.

    Args:
        arguments: name of the sub-command and its settings; None for those of the process.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted before anything was begun.\n")
        return 128 + signal.SIGINT
    except Exception as error:
        if not (text := exhaustion_text(error)):
            raise
        sys.stderr.write(f"error: {text}\n")
        return 2


def _run(arguments: list[str]) -> int:
    num_processes, (name, *settings) = _processes(arguments)
    if name in ("--help", "-h", "help"):
        sys.stdout.write(usage())
        return 0
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    script = COMMANDS[name]
    sys.path.insert(0, str(SCRIPTS))
    command = getattr(importlib.import_module(script), script)
    if num_processes > 1:
        if name not in PARALLEL:
            raise UserError(f"ofa {name} works in one process; --processes is for {', '.join(PARALLEL)}.")
        # Each process would name the same mistakes.
        command.config(*(setting for setting in settings if not setting.startswith("-")))
        return run_in_processes(num_processes, ["ofa", name, *settings])
    sys.argv = [f"ofa {name}", *settings]
    command()
    return 0


def _processes(arguments: list[str]) -> tuple[int, list[str]]:
    """Return the number of processes that is asked for, and the other arguments."""
    option, equals, text = arguments[0].partition("=")
    if option != "--processes":
        return 1, arguments
    rest = arguments[1:] if equals else arguments[2:]
    text = text if equals else "".join(arguments[1:2])
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--processes is {text!r}; expected a number of processes, at least 1.")
    return int(text), rest or ["--help"]


def usage() -> str:
    """Return the text of `ofa --help`: every sub-command with the first sentence of its script."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary(script)}" for name, script in COMMANDS.items()]
    return _USAGE.format(commands="\n".join(lines), parallel=", ".join(PARALLEL))


def summary(script: str) -> str:
    """Return what a script does, from the first line of its docstring, without the example."""
    tree = ast.parse((SCRIPTS / f"{script}.py").read_text(encoding="utf-8"))
    first_line = (ast.get_docstring(tree) or "").splitlines()[0]
    return first_line.split(", e.g.")[0].rstrip(".")
