"""The engines of a bundle's files: their names, and which file this machine can run."""

from __future__ import annotations

from ofa.common.errors import UserError
from ofa.export.bundle import Bundle
from ofa.export.formats import FORMATS, PT2, format_of
from ofa.export.trust import is_exported_here
from ofa.runtimes.base import FP32, missing_packages

WEIGHTS = "weights"


def engine_title(bundle: Bundle, file: str) -> str:
    """Return the name, for users, of what runs one of a bundle's files."""
    if file == WEIGHTS:
        return "PyTorch"
    runtime = format_of(file, bundle.files[file].precision).runtime
    return "PyTorch" if runtime is None else runtime.title


def runnable_file(bundle: Bundle, *, trust: bool = False) -> str:
    """Return the file of a bundle to run where none is named: one in fp32 if there is one.

    The files of the engines come first, in the order of the formats; then the weights, the graph of PyTorch,
    and files of lower precision.

    Args:
        bundle: the bundle.
        trust: run a file that can run code although it was not exported on this machine.

    Raises:
        UserError: if none of the files can be run, naming what each needs.
    """
    others = [name for name in bundle.files if name not in (WEIGHTS, PT2)]
    full = [name for name in FORMATS if name in others and bundle.files[name].precision == FP32]
    reasons = []
    for name in [*full, WEIGHTS, PT2, *(name for name in others if name not in full)]:
        if name in bundle.files:
            reason = _obstacle(bundle, name, trust)
            if not reason:
                return name
            reasons.append(f"  {name} {reason}")
    raise UserError("\n".join([f"None of the files of {bundle.path} can be run here:", *reasons]))


def _obstacle(bundle: Bundle, name: str, trust: bool) -> str:
    """Return why a file cannot be run on this machine; empty if nothing is known to prevent it."""
    if name == WEIGHTS:
        return "" if bundle.module is not None else "needs the module's own code"
    precision = bundle.files[name].precision
    kind = format_of(name, precision)
    if kind.runs_code and not (trust or is_exported_here(bundle.files[name].sha256)):
        return "was not exported on this machine and could run any code; if you trust its maker: trust=true"
    if kind.runtime is None:
        return ""
    if names := missing_packages(kind.runtime.packages):
        return f"needs {', '.join(names)}: pip install -e '.[{kind.runtime.extra}]'"
    try:
        precisions = kind.runtime.offers().get("cpu", ())
    except UserError as error:
        return str(error)
    return "" if precision in precisions else f"is {precision}, which this processor does not offer"
