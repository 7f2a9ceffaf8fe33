"""`different_configs`: which candidates of a search are worth a measurement."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace
from search.result.result import SearchResult


def different_configs(
    space: SearchSpace,
    result: SearchResult,
    *,
    measured_configs: Collection[AnyConfig],
    picks: Sequence[AnyConfig],
    count: int,
    min_accuracy: float,
) -> list[AnyConfig]:
    """Return new candidates of a search: the best, then those that differ most from all that are picked.

    Args:
        space: the space of the candidates.
        result: a search for one network.
        measured_configs: networks that are not returned, because they were measured.
        picks: networks that are not returned, because they were picked before.
        count: largest number of candidates.
        min_accuracy: estimated accuracy that a candidate has to exceed.
    """
    # Only the accurate end of the front is relevant: the front reaches down to the smallest networks.
    accurate_end = (*result.ranked, *reversed(result.front[-len(result.ranked) :]))
    pool = [c.config for c in accurate_end if c.accuracy > min_accuracy and c.config not in picks]
    pool = [config for config in dict.fromkeys(pool) if config not in measured_configs]
    new_configs = pool[: min(1, count)]
    while len(new_configs) < min(count, len(pool)):
        remaining_configs = [config for config in pool if config not in new_configs]
        other_genomes = space.genomes([*picks, *new_configs])
        differing = space.genomes(remaining_configs)[:, None] != other_genomes[None]
        new_configs.append(remaining_configs[int(differing.sum(axis=2).min(axis=1).argmax())])
    return new_configs
