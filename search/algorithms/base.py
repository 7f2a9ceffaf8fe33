"""`Algorithm`: the one record of a search algorithm; each file of this folder that has one defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from ofa.common.progress import ProgressCallback, silent
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from search.limits.limit import Limit
from search.result.result import SearchResult

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class SearchFunction(Protocol[S_contra]):
    """What every algorithm is: a function of space, estimators and its own settings."""

    def __call__(
        self,
        space: SearchSpace,
        accuracy: Estimator,
        limits: Sequence[Limit],
        settings: S_contra,
        rng: np.random.Generator,
        progress: ProgressCallback = silent,
    ) -> SearchResult:
        """Return the result; see `search.algorithms.evolution.evolve` for the arguments."""
        ...


@dataclass(frozen=True, kw_only=True)
class Algorithm(Generic[S]):
    """One search algorithm; `search.algorithms.registry` collects them.

    Attributes:
        name: what `algorithm` of a search names.
        settings: the dataclass of its settings, whose defaults are those of `conf/search/<name>.yaml`.
        search: the search itself.
        finds_front: whether it finds a whole front, so that it needs no limit, or one network.
    """

    name: str
    settings: type[S]
    search: SearchFunction[S]
    finds_front: bool = False
