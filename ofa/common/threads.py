"""How many threads linear algebra uses: NumPy's, SciPy's and scikit-learn's BLAS; PyTorch is not loaded.

The matrices of a search or a fit have some hundred rows. On these, the threads of a BLAS mostly wait for
each other, and ten to a hundred times longer where another process or PyTorch's threads hold the processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController, threadpool_limits

from ofa.common.errors import UserError


def check_threads(threads: int | None) -> None:
    """Check a setting `threads`.

    Raises:
        UserError: if it is below 1.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; expected at least 1, or null for the libraries' choice.")


def set_blas_threads(threads: int) -> None:
    """Let every BLAS library that is loaded use so many threads, from now on."""
    threadpool_limits(threads, user_api="blas")


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Let every BLAS library that is loaded use so many threads, and restore their numbers afterwards.

    Also a decorator. Looking for the libraries takes about a millisecond: meant for a whole search or fit.
    The numbers are those of the whole process, of all its Python threads.

    Args:
        threads: at least 1; None leaves the numbers as they are.
    """
    if threads is None:
        yield
        return
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        yield
