"""Search algorithms by name: the records `ALGORITHM` of the files of this folder."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ofa.common.config import build
from ofa.common.errors import UserError, unknown_name
from ofa.common.progress import ProgressCallback, silent
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from search.algorithms.base import Algorithm
from search.limits.limit import Limit
from search.result.result import SearchResult


def collect_algorithms(modules: Iterable[ModuleType]) -> dict[str, Algorithm[Any]]:
    """Return, by name, the records `ALGORITHM` of the modules that define one."""
    algorithms: dict[str, Algorithm[Any]] = {}
    for module in modules:
        algorithm = getattr(module, "ALGORITHM", None)
        if algorithm is not None:
            assert isinstance(algorithm, Algorithm), module.__name__
            assert algorithm.name not in algorithms, f"{module.__name__}: a second {algorithm.name!r}"
            algorithms[algorithm.name] = algorithm
    return algorithms


def _modules_of_folder() -> Iterator[ModuleType]:
    """Import and yield the modules beside this one."""
    package = importlib.import_module(__package__)
    for info in pkgutil.iter_modules(package.__path__, f"{__package__}."):
        if info.name != __name__:
            yield importlib.import_module(info.name)


ALGORITHMS = collect_algorithms(_modules_of_folder())


@dataclass(frozen=True)
class SearchPlan:
    """A registered algorithm with checked settings; space, estimators and seed are arguments of `run`."""

    algorithm: str
    settings: Any

    @property
    def finds_front(self) -> bool:
        """Whether the algorithm finds a whole front, and needs no finite limit."""
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
        UserError: if the algorithm is missing or unknown, or settings are wrong (all are named).
    """
    if "algorithm" not in values:
        raise UserError(f"{where}.algorithm is missing; expected one of {', '.join(sorted(ALGORITHMS))}.")
    name = values["algorithm"]
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise unknown_name("search algorithm", name, ALGORITHMS)
    settings = {key: value for key, value in values.items() if key != "algorithm"}
    return SearchPlan(name, build(ALGORITHMS[name].settings, settings, where))
