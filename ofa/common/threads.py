"""Number of threads of the BLAS of NumPy, SciPy and scikit-learn; loads without PyTorch.

The matrices of a search or a fit have some hundred rows. On these, BLAS threads mostly wait for each other,
and ten to a hundred times longer when another process or PyTorch's threads occupy the cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController, threadpool_limits

from ofa.common.errors import UserError


def check_threads(threads: int | None) -> None:
    """Check a setting `threads`.

    Raises:
        UserError: if `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; expected at least 1, or null for the libraries' choice.")


def set_blas_threads(threads: int) -> None:
    """Let every loaded BLAS library use `threads` threads from now on."""
    threadpool_limits(threads, user_api="blas")


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Let every loaded BLAS library use `threads` threads, and restore the numbers afterwards.

    Also usable as a decorator. Listing the libraries takes about a millisecond, so wrap a whole search or
    fit. The setting holds for all Python threads of the process.

    Args:
        threads: number of threads, at least 1; None leaves the numbers unchanged.
    """
    if threads is None:
        yield
        return
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        yield
