"""Commands measure in processes that begin quickly."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_beginning(forked_measuring: None) -> None:
    """Every module's commands, also those of its fixtures."""
