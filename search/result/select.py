"""Selection of a sub-network by name: a search result, or an extreme of the space."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.latency_target import LatencyTarget
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace
from search.limits.limit import LATENCY
from search.result.result import SearchResult, searched_fingerprint


@dataclass(frozen=True)
class SelectedSubnet:
    """A sub-network and its search's estimates.

    Attributes:
        config: the sub-network.
        expected_value: value of the metric; None without a search.
        expected_latency_ms: latencies in milliseconds by the name of the limit.
        latency_targets: what these latencies are for, where the result says it.
        metric: metric of `expected_value`.
        num_candidates: number of networks whose accuracy the search estimated; 0 without a search.
    """

    config: AnyConfig
    expected_value: float | None = None
    expected_latency_ms: dict[str, float] = field(default_factory=dict)
    latency_targets: dict[str, LatencyTarget] = field(default_factory=dict)
    metric: Metric = DEFAULT_METRIC
    num_candidates: int = 0


def select_subnet(space: SearchSpace, name: str, folder: Path) -> SelectedSubnet:
    """Return the sub-network called `name`.

    Args:
        space: the supernet's space.
        name: smallest, middle or largest; a result in `folder` or the path of one; or such a result with
            limits on its quantities in their order, e.g. phone-pareto@30 or phone-pareto@30@5, for the best
            candidate of its front inside these limits.
        folder: folder of the run's search results.

    Raises:
        UserError: if there is no such result, with a list of existing results, or it belongs to another
            space.
    """
    ends = {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}
    if name in ends:
        return SelectedSubnet(ends[name])
    path, maxima = _find(name, folder)
    if not path.is_file():
        known_names = sorted(file.stem for file in folder.glob("*.json"))
        raise UserError(
            f"No search result {name!r}; known: {', '.join([*ends, *known_names])}.", stage="search"
        )
    result = SearchResult.load(path, space)
    candidate = result.best_within(maxima) if maxima else result.best
    latencies = {limit.name: candidate.values[limit.name] for limit in result.limits if limit.kind == LATENCY}
    expected = min(max(candidate.accuracy, 0.0), 1.0) if result.metric.is_fraction else candidate.accuracy
    targets = {limit.name: limit.target for limit in result.limits if limit.target is not None}
    return SelectedSubnet(
        candidate.config, expected, latencies, targets, result.metric, result.accuracy_evaluations
    )


def _find(name: str, folder: Path) -> tuple[Path, tuple[float, ...]]:
    """Return the path of the result that `name` refers to, which may not exist, and its limits."""
    for path in (folder / f"{name}.json", Path(name)):
        if path.is_file():
            return path, ()
    stem, *texts = name.split("@")
    try:
        maxima = tuple(map(float, texts))
    except ValueError:
        raise UserError(
            f"{name!r} has limits that are not numbers; expected NAME@LIMIT, e.g. phone-pareto@30."
        ) from None
    path = folder / f"{stem}.json"
    return (path if path.is_file() else Path(stem)), maxima


def searches_by_subnet(folder: Path, space: SearchSpace) -> dict[str, SearchResult]:
    """Return the search results of `space` in `folder`, by the names that `select_subnet` takes."""
    paths = [
        path for path in sorted(folder.glob("*.json")) if searched_fingerprint(path) == space.fingerprint
    ]
    return {path.stem: SearchResult.load(path, space) for path in paths}
