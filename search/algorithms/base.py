"""`Algorithm`: the record of a search algorithm; each algorithm's file in this folder defines one."""

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
    """The interface of algorithms: a function of space, estimators and settings."""

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
        name: name in the setting `algorithm` of a search.
        settings: dataclass of the settings; `conf/search/<name>.yaml` has its defaults.
        search: the search function.
        finds_front: whether it finds a whole front and needs no finite limit, instead of one network.
    """

    name: str
    settings: type[S]
    search: SearchFunction[S]
    finds_front: bool = False
