"""`find`: the best sub-networks of a space under limits."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.progress import ProgressCallback, silent
from ofa.space.estimator import Affine, Estimator
from ofa.space.space import SearchSpace
from search.algorithms.registry import SearchPlan, plan_search
from search.limits.limit import Limit
from search.result.result import SearchResult, convert_to_metric
from search.verified.measure import Measure
from search.verified.verify import VerifySettings, verified_search


def find(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    *,
    plan: SearchPlan | None = None,
    seed: int = 0,
    metric: Metric = DEFAULT_METRIC,
    measure: Measure | None = None,
    verification: VerifySettings | None = None,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search `space` for the best sub-networks under `limits`.

    Args:
        space: space to search; may be restricted.
        accuracy: estimator of `metric`, e.g. a predictor.
        limits: upper bounds on estimated quantities.
        plan: search algorithm with its settings; None for evolution with its defaults.
        seed: seed; equal arguments give equal results.
        metric: metric that is estimated; its direction decides which values are better.
        measure: measures latencies; if given, candidates are verified by measurement.
        verification: effort of the verification; None for the default.
        progress: called after every generation.

    Raises:
        UserError: if no sub-network keeps the limits; see `search.verified.verify.verified_search`.
    """
    plan = plan or plan_search({"algorithm": "evolution"})
    score = accuracy if metric.higher_is_better else Affine(accuracy, -1.0)
    if measure is None:
        return convert_to_metric(plan.run(space, score, limits, seed, progress), metric)
    settings = verification or VerifySettings()
    return convert_to_metric(
        verified_search(plan, space, score, limits, seed, measure, settings, progress), metric
    )
