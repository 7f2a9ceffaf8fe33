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
from search.outputs import save_all
from search.registry import plan_search
from search.result import SearchResult
from search.table import report


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
    """Search, save the result, its plot and its table, and return its name and the result."""
    plan, run = plan_search(config.search), config.directory
    space = (config.space or config.trained_space).restrict(resolutions=config.resolutions)
    bounds = config.limits.or_latency() if plan.finds_front and not config.more_tables else config.limits
    table = Path(config.table or run.table(config.device.name))
    latency = LatencyTable.load(table).estimator(space, config.device) if bounds.latency_ms else None
    more = {name: (other.estimator(space), other.latency_ms) for name, other in config.more_tables.items()}
    limits = build_limits(space, bounds, latency, more)
    name = config.name or plan.result_name(config.device.name, limits)
    with progress_bar("searching") as progress:
        result = plan.run(space, load_predictor(run.predictor, space), limits, config.seed, progress)
    used = {"predictor": str(run.predictor), "table": str(table) if latency else "none"}
    save_all(result, run.search(name), used)
    print(f"{report(result, limits)}\nresult: {run.search(name)} (and .png, .csv)")
    subnet = f"{name}@LIMIT" if plan.finds_front else name
    print(f"next: python scripts/export_subnet.py run_name={config.run_name} subnet={subnet}")
    return name, result


if __name__ == "__main__":
    search_for_device()
