"""What is wrong with a file that cannot be read: empty, truncated, damaged, or no such file at all."""

from __future__ import annotations

import io
import json
import re
import zipfile

_PART_OF_TOKEN = re.compile(r"[-+.\w]{0,40}", re.ASCII)
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_HEADER_BYTES = 8  # of a safetensors file: the length of the JSON that follows


def json_damage(error: Exception) -> str:
    """Return what is wrong with a JSON file, as a predicate: "is empty", "is truncated", …

    Args:
        error: what reading or parsing its text raised.
    """
    if isinstance(error, json.JSONDecodeError):
        text = error.doc.rstrip()
        if not text:
            return "is empty"
        # A number or a word may be cut: 1. and tru, at which the parser stops before the end.
        is_cut = error.pos > 0 and _PART_OF_TOKEN.fullmatch(text, min(error.pos, len(text)))
        if is_cut or error.msg.startswith("Unterminated string"):
            return f"is truncated: it ends in line {error.lineno} before its JSON does"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"is not valid JSON ({error})"
    return f"is damaged: {error}"


def weights_damage(content: bytes, error: Exception) -> str:
    """Return what is wrong with a file of weights, as a predicate.

    Args:
        content: the file, of `torch.save` or of safetensors.
        error: what reading it raised.
    """
    if not content:
        return "is empty"
    if content.startswith(_ZIP[: len(content)]):
        return "is damaged" if zipfile.is_zipfile(io.BytesIO(content)) else "is truncated"
    if content.startswith(_PICKLE):
        return (
            "is truncated" if isinstance(error, EOFError) or "unexpected EOF" in str(error) else "is damaged"
        )
    header_end = _HEADER_BYTES + int.from_bytes(content[:_HEADER_BYTES], "little")
    if content[_HEADER_BYTES : _HEADER_BYTES + 1] == b"{":
        return "is truncated" if len(content) < _end_of_tensors(content, header_end) else "is damaged"
    return "is no file of weights"


def _end_of_tensors(content: bytes, header_end: int) -> int:
    """Return the length of a safetensors file by its own header; that of the header if it is damaged."""
    try:
        header = json.loads(content[_HEADER_BYTES:header_end])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return header_end + int(max(ends, default=0))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return header_end
