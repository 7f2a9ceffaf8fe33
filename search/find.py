"""`find`: the best sub-networks of a space under limits."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.common.metric import TOP1, Metric
from ofa.common.progress import ProgressCallback, silent
from ofa.space.estimator import Affine, Estimator
from ofa.space.space import SearchSpace
from search.algorithms.registry import SearchPlan, plan_search
from search.limits.limit import Limit
from search.result.result import SearchResult, in_metric
from search.verified.measure import Measure
from search.verified.verify import VerifySettings, verified_search


def find(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    *,
    plan: SearchPlan | None = None,
    seed: int = 0,
    metric: Metric = TOP1,
    measure: Measure | None = None,
    verification: VerifySettings | None = None,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search `space` for the best sub-networks under `limits`.

    Args:
        space: what is searched; it may be restricted.
        accuracy: values of `metric` of populations, e.g. a predictor.
        limits: upper bounds.
        plan: algorithm and its settings; None for evolution with its defaults.
        seed: equal arguments give equal results.
        metric: what is estimated; its direction decides what is best.
        measure: measures latencies; where it is given, candidates are verified by it.
        verification: effort of the verification; None for the default.
        progress: told about every generation.

    Raises:
        UserError: if no sub-network keeps the limits; see `search.verified.verify.verified_search`.
    """
    plan = plan or plan_search({"algorithm": "evolution"})
    score = accuracy if metric.higher_is_better else Affine(accuracy, -1.0)
    if measure is None:
        return in_metric(plan.run(space, score, limits, seed, progress), metric)
    settings = verification or VerifySettings()
    return in_metric(verified_search(plan, space, score, limits, seed, measure, settings, progress), metric)
