"""Errors of exhausted resources in words for the user: memory, open files, processes, disk."""

from __future__ import annotations

import errno

_MEMORY_WORDS = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
)
_THREAD_WORDS = ("can't start new thread", "resource temporarily unavailable")
_NO_MEMORY = (
    "There is not enough memory. Give the process more (of its container, or ulimit -v), or let it use less: "
    "a smaller batch_size, fewer data.workers, a smaller space."
)
_NO_FILES = "Too many files are open. Allow more (ulimit -n 4096), or use fewer data.workers."
_NO_PROCESSES = (
    "No further thread or process can be started. Allow more of them (ulimit -u) or more memory (ulimit -v), "
    "or use fewer threads and data.workers."
)
_BY_NUMBER = {
    errno.ENOMEM: _NO_MEMORY,
    errno.EMFILE: _NO_FILES,
    errno.ENFILE: _NO_FILES,
    errno.EAGAIN: _NO_PROCESSES,
}


def exhaustion_text(error: BaseException) -> str:
    """Return which resource is exhausted and what to do; empty for any other error.

    Args:
        error: whatever an operation raised; what caused it is looked at as well.
    """
    seen: BaseException | None = error
    while seen is not None:
        if text := _text(seen):
            return text
        seen = seen.__cause__ or seen.__context__
    return ""


def _text(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f": {error.filename}" if error.filename else ""
        return f"A disk is full{where}. Make room, and give the same command again."
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno]
    message = str(error).lower()
    if isinstance(error, ImportError) and "failed to map segment" in message:
        return _NO_MEMORY
    if isinstance(error, RuntimeError):
        if any(words in message for words in _MEMORY_WORDS):
            return _NO_MEMORY
        if any(words in message for words in _THREAD_WORDS):
            return _NO_PROCESSES
        if "too many open files" in message:
            return _NO_FILES
    return ""
