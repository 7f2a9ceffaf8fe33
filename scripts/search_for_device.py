"""Search the best sub-network, e.g. `search_for_device.py device=my_cpu limits.latency_ms=3.5`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_tables.device import DeviceSpec
from latency_tables.table import LatencyTable, TableLimit
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunConfig
from ofa.space import SearchSpace
from predictors.load import load_predictor
from search.limits import LimitSettings, build_limits
from search.plot import plot_result
from search.registry import plan_search
from search.result import SearchResult


@dataclass(frozen=True, kw_only=True)
class SearchConfig(RunConfig):
    """Settings of `conf/search_for_device.yaml`."""

    device: DeviceSpec
    search: dict[str, Any]
    limits: LimitSettings
    more_tables: dict[str, TableLimit]
    table: str | None
    space: SearchSpace | None
    resolutions: tuple[int, ...] | None
    name: str | None
    seed: int


@command("search_for_device", SearchConfig)
def search_for_device(config: SearchConfig) -> tuple[str, SearchResult]:
    """Search, save the result and its plot, and return its name and the result."""
    plan = plan_search(config.search)
    run, space = config.directory, config.space or config.trained_space
    space = space.restrict(resolutions=config.resolutions)
    predictor = load_predictor(run.predictor, space)
    table = Path(config.table or run.table(config.device.name))
    timed = config.limits.latency_ms is not None
    latency = LatencyTable.load(table).estimator(space, config.device) if timed else None
    more = {name: (other.estimator(space), other.latency_ms) for name, other in config.more_tables.items()}
    limits = build_limits(space, config.limits, latency, more)
    name = config.name or "-".join([config.device.name, *(limit.short for limit in limits)])
    with progress_bar("searching") as progress:
        result = plan.run(space, predictor, limits, config.seed, progress)
    used = {"predictor": str(run.predictor), "table": str(table) if latency else "none"}
    result.save(run.search(name), used)
    plot_result(result, run.search(name).with_suffix(".png"))
    print(f"found in {result.seconds:.2f} s, {result.evaluations} candidates: {result.best.config}")
    for limit in limits:
        print(f"{limit.name}: {limit.show(result.best.values[limit.name])} of {limit.show(limit.maximum)}")
    print(f"predicted top-1: {100 * result.best.accuracy:.2f} %\nresult: {run.search(name)} (and .png)")
    print(f"next: python scripts/export_subnet.py run_name={config.run_name} subnet={name}")
    return name, result


if __name__ == "__main__":
    search_for_device()
