"""Errors of exhausted resources are said in words, whoever raised them; all others stay as they are."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from ofa.common.exhausted import exhaustion_text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            "memory",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory"),
        (OSError(errno.EMFILE, "Too many open files"), r"ulimit -n"),
        (RuntimeError("can't start new thread"), r"ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), r"ulimit -u"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/a"), r"disk is full: /runs/a"),
    ],
)
def test_exhausted_resources_are_named(error: Exception, words: str) -> None:
    assert words in exhaustion_text(error)
    wrapped = RuntimeError("something else")
    wrapped.__cause__ = error
    assert words in exhaustion_text(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("shape mismatch"),
        ImportError("No module named 'x'"),
        OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
    ],
)
def test_other_errors_are_not_explained_away(error: Exception) -> None:
    assert exhaustion_text(error) == ""
