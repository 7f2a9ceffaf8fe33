"""Files that can run code when they are loaded: only those exported here, or trusted by the user, are loaded.

A graph of `torch.export` names the functions that it calls, holds expressions that are evaluated and may hold
pickles; a crafted one runs what its maker likes. The digests of the graphs that were exported on this
machine are kept in the user's state folder, one empty file each, so that neither a copied bundle nor a copied
run counts as one's own.
"""

from __future__ import annotations

from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.remembered import is_remembered, remember

_KIND = "exported_graphs"


def record_export(digest: str) -> None:
    """Remember that a file was exported here.

    Args:
        digest: SHA-256 of the file, hex.
    """
    remember(_KIND, digest)


def is_exported_here(digest: str) -> bool:
    """Return whether a file with this SHA-256 was exported by this user on this machine."""
    return is_remembered(_KIND, digest)


def check_trusted(path: Path, digest: str, trust: bool) -> None:
    """Check that a file that can run code may be loaded.

    Args:
        path: the file, for the error text.
        digest: its SHA-256, hex.
        trust: whether the user trusts the file.

    Raises:
        UserError: if the file was not exported here and is not trusted.
    """
    if not trust and not is_exported_here(digest):
        raise UserError(
            f"{path} was not exported on this machine, and loading a graph of PyTorch can run any code that "
            "its maker put into it. Take another file of the bundle (weights, onnx, …), which runs nothing; "
            "or, if you know and trust the maker, give trust=true."
        )
