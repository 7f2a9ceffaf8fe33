"""Searching a space for the best sub-networks under limits; loads without PyTorch."""

from search.find import find
from search.limits.limit import Limit

__all__ = ["Limit", "find"]
