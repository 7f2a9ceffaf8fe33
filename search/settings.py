"""`SearchSettings`: what a command that searches is told, and the search that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ofa.cost import Estimator
from ofa.errors import UserError
from ofa.progress import ProgressCallback, silent
from ofa.run import RunConfig
from ofa.space import SearchSpace
from search.constraints import Limit
from search.limits import LimitSettings
from search.measuring import Measure
from search.registry import SearchPlan, plan_search
from search.result import SearchResult
from search.verify import VerifySettings, verified_search


@dataclass(frozen=True, kw_only=True)
class SearchSettings(RunConfig):
    """Settings of a search, latency tables apart.

    Attributes:
        search: algorithm and its settings, as in `conf/search/`.
        limits: bounds on the network.
        space: what is searched; None for the space of the run.
        resolutions: those that are searched; None for all.
        name: of the result; None to make one from device and limits.
        verify: whether candidates are measured; see `search.verify`.
        verification: its effort.
        from_kit: folders of kits that were measured on another device for such a search.
        seed: of the search.
    """

    search: dict[str, Any]
    limits: LimitSettings
    space: SearchSpace | None
    resolutions: tuple[int, ...] | None
    name: str | None
    verify: bool
    verification: VerifySettings
    from_kit: str | tuple[str, ...] | None
    seed: int

    def __post_init__(self) -> None:
        """Check that kits come with a verified search."""
        if self.from_kit and not self.verify:
            raise UserError("from_kit holds measurements of a verified search; add verify=true.")

    @property
    def plan(self) -> SearchPlan:
        """The algorithm with checked settings."""
        return plan_search(self.search)

    @property
    def searched_space(self) -> SearchSpace:
        """The space with the chosen resolutions."""
        return (self.space or self.trained_space).restrict(resolutions=self.resolutions)

    def find(
        self,
        space: SearchSpace,
        accuracy: Estimator,
        limits: Sequence[Limit],
        measure: Measure | None = None,
        progress: ProgressCallback = silent,
    ) -> SearchResult:
        """Search `space` under `limits`; verified if there is something to `measure` with.

        Raises:
            UserError: if no sub-network keeps the limits; see `search.verify.verified_search`.
        """
        if measure is None:
            return self.plan.run(space, accuracy, limits, self.seed, progress)
        task = self.plan, space, accuracy, limits, self.seed
        return verified_search(*task, measure, self.verification, progress)
