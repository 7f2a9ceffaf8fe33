"""Search algorithms by name: one line here, one file beside it and one YAML add another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ofa.common.config import build
from ofa.common.errors import UserError, unknown_name
from ofa.common.progress import ProgressCallback, silent
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from search.algorithms.evolution import EvolutionSettings, evolve
from search.algorithms.nsga2 import ParetoSettings, search_front
from search.algorithms.random_search import RandomSettings, search_randomly
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


@dataclass(frozen=True)
class Algorithm(Generic[S]):
    """A search function, the dataclass of its settings, and whether it finds a front or one network."""

    settings: type[S]
    search: SearchFunction[S]
    finds_front: bool = False


ALGORITHMS: dict[str, Algorithm[Any]] = {
    "evolution": Algorithm(EvolutionSettings, evolve),
    "pareto": Algorithm(ParetoSettings, search_front, finds_front=True),
    "random": Algorithm(RandomSettings, search_randomly),
}


@dataclass(frozen=True)
class SearchPlan:
    """A registered algorithm with checked settings: everything but the space, the estimators and the seed."""

    algorithm: str
    settings: Any

    @property
    def finds_front(self) -> bool:
        """Whether the algorithm finds a whole front, so that it needs no limit."""
        return ALGORITHMS[self.algorithm].finds_front

    def result_name(self, device: str, limits: Sequence[Limit]) -> str:
        """Return a name for the result of a search for `device`."""
        kind = [self.algorithm] if self.finds_front else []
        return "-".join([device, *kind, *(limit.short for limit in limits)])

    def run(
        self,
        space: SearchSpace,
        accuracy: Estimator,
        limits: Sequence[Limit],
        seed: int,
        progress: ProgressCallback = silent,
    ) -> SearchResult:
        """Search; equal arguments give equal results.

        Raises:
            UserError: if no sub-network keeps the limits.
        """
        search = ALGORITHMS[self.algorithm].search
        result = search(space, accuracy, limits, self.settings, np.random.default_rng(seed), progress)
        return dataclasses.replace(result, seed=seed)


def plan_search(values: Mapping[str, Any], where: str = "search") -> SearchPlan:
    """Check a mapping such as `conf/search/evolution.yaml`: `algorithm` and its settings.

    Raises:
        UserError: if the algorithm is missing or unknown, or naming all settings that are wrong.
    """
    if "algorithm" not in values:
        raise UserError(f"{where}.algorithm is missing; expected one of {', '.join(sorted(ALGORITHMS))}.")
    name = values["algorithm"]
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise unknown_name("search algorithm", name, ALGORITHMS)
    settings = {key: value for key, value in values.items() if key != "algorithm"}
    return SearchPlan(name, build(ALGORITHMS[name].settings, settings, where))
