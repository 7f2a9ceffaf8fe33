"""Search the best sub-network, e.g. `search_for_device.py device=my_cpu limits.latency_ms=3.5`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.device import DeviceSpec
from latency_tables.shipped import find_table, is_shipped
from latency_tables.table import LatencyTable, TableLimit
from latency_tables.verification import choose_measure
from ofa.accelerator import threads_set
from ofa.launch import command
from ofa.progress import progress_bar
from predictors.load import load_predictor
from search.limits import build_limits
from search.outputs import save_all
from search.result import SearchResult
from search.settings import SearchSettings
from search.table import report


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SearchSettings):
    """Settings of `conf/search_for_device.yaml`."""

    device: DeviceSpec
    more_tables: dict[str, TableLimit]
    table: str | None
    max_table_error: float


@command("search_for_device", SearchConfig)
def search_for_device(config: SearchConfig) -> tuple[str, SearchResult]:
    """Search, save the result, its plot and its table, and return its name and the result."""
    plan, run, space = config.plan, config.directory, config.searched_space
    bounds = config.limits.or_latency() if plan.finds_front and not config.more_tables else config.limits
    path, most = Path(config.table or find_table(run, config.device.name, space)), config.max_table_error
    table = LatencyTable.load(path) if bounds.latency_ms else None
    if table and config.resolutions is None and is_shipped(path):
        covered = table.covered_resolutions(space)
        space = space.restrict(resolutions=covered) if covered else space
        print(f"{path}: {table.error_text}; {', '.join(map(str, covered))} px")
    latency = table.estimator(space, config.device, most) if table else None
    more = {n: (other.estimator(space, most), other.latency_ms) for n, other in config.more_tables.items()}
    limits = build_limits(space, bounds, latency, more)
    name = config.name or plan.result_name(config.device.name, limits)
    with threads_set(config.threads), progress_bar("searching") as progress:
        options = config.verification.processes, run.kit(name), config.from_kit, config.seed, progress
        measure = choose_measure(table, config.device, space, *options) if config.verify else None
        accuracy = load_predictor(run.predictor, space, config.threads)
        result = config.find(space, accuracy, limits, measure, progress)
    used = {"predictor": str(run.predictor), "table": str(path) if table else "none"}
    save_all(result, run.search(name), used)
    print(f"{report(result, limits)}\nresult: {run.search(name)} (and .png, .csv)")
    if measure and measure.next_step:
        print(measure.next_step)
    subnet = f"{name}@LIMIT" if plan.finds_front else name
    print(f"next: python scripts/export_subnet.py run_name={config.run_name} subnet={subnet}")
    return name, result


if __name__ == "__main__":
    search_for_device()
