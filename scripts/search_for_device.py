"""Search the best sub-network, e.g. `ofa search device=my_cpu limits.latency_ms=3.5`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_latency_table import networks_of

from latency_tables.table.device import DeviceSpec
from latency_tables.table.limit import TableLimit
from latency_tables.table.load import load_table
from latency_tables.table.measured import MeasuredTable
from latency_tables.table.shipped import find_table, is_shipped
from ofa.common.errors import UserError
from ofa.common.latency_target import LatencyTarget
from ofa.common.locks import sole_writer
from ofa.common.progress import ProgressCallback, progress_bar
from ofa.common.text_settings import Name, PathText
from ofa.graph.space import ImageSpace
from ofa.launch import command, job_name
from ofa.runs.config import RunConfig, next_command
from ofa.space.estimator import Estimator
from ofa.space.staged import StagedSpace
from search.algorithms.registry import plan_search
from search.find import find
from search.limits.limit import rounded_up
from search.limits.named import LimitSettings, build_limits
from search.limits.reachable import loose_limit_lines
from search.reports.predictions import Predictions
from search.reports.text import report
from search.result.result import SearchResult
from search.verified.verify import VerifySettings

if TYPE_CHECKING:
    from latency_tables.remote.verification import MeasureByKit, MeasureHere
    from predictors.load import Predictor


@dataclass(frozen=True, kw_only=True)
class SearchConfig(RunConfig):
    """Settings of `conf/search_for_device.yaml`.

    Attributes:
        search: algorithm and its settings, as in `conf/search/`.
        limits: bounds on the network.
        space: what is searched; None for the space of the run.
        resolutions: those that are searched; None for all.
        name: name of the result; None to make one from device and limits.
        verify: whether candidates are measured; see `search.verified.verify`.
        verification: its effort.
        from_kit: folders of kits that were measured on another device for such a search.
        seed: seed of the search.
        device: what the network is for.
        more_tables: limits on further devices by name.
        table: latency table of the device; None for the run's own or a shipped one.
        max_table_error: percent that a table may be wrong.
    """

    search: dict[str, Any]
    limits: LimitSettings
    space: StagedSpace | None
    resolutions: tuple[int, ...] | None
    name: Name | None
    verify: bool
    verification: VerifySettings
    from_kit: PathText | tuple[PathText, ...] | None
    seed: int
    device: DeviceSpec
    more_tables: dict[str, TableLimit]
    table: PathText | None
    max_table_error: float

    def __post_init__(self) -> None:
        """Check that kits come with a verified search."""
        if self.from_kit and not self.verify:
            raise UserError("from_kit holds measurements of a verified search; add verify=true.")

    @property
    def searched_space(self) -> ImageSpace:
        """The space with the chosen resolutions."""
        return (self.space or self.trained_space).restrict({"resolution": self.resolutions})


@command("search_for_device", SearchConfig)
def search_for_device(config: SearchConfig) -> tuple[str, SearchResult]:
    """Search, save the result, its plot and its table, and return its name and the result."""
    from ofa.common.accelerator import threads_set
    from predictors.load import load_predictor
    from search.reports.files import save_all

    plan, run, space = plan_search(config.search), config.directory, config.searched_space
    bounds = config.limits.or_latency() if plan.finds_front and not config.more_tables else config.limits
    path = Path(config.table or find_table(run, config.device, space)) if bounds.latency_ms else None
    table = load_table(path) if path else None
    if path and table and config.resolutions is None and is_shipped(path):
        space = table.covered_space(space)
        print(f"{path}: {table.error_text}; {', '.join(map(str, table.covered_resolutions(space)))} px")
    limits = build_limits(space, bounds, *_latencies(config, table, space), _targets(config, table))
    named_settings = ["run_name", "name"] if config.name else ["run_name", "limits", "device"]
    for line in loose_limit_lines(space, limits, config.seed):
        print(line)
    name = job_name(config.name or plan.result_name(config.device.name, limits), named_settings)
    with (
        sole_writer(run.search(name), "search result"),
        threads_set(config.threads),
        progress_bar("searching") as progress,
    ):
        measure = _measure(config, table, space, run.kit(name), progress) if config.verify else None
        predictor = load_predictor(run.predictor, space, config.threads)
        result = find(
            space,
            predictor,
            limits,
            plan=plan,
            seed=config.seed,
            metric=predictor.metric,
            measure=measure,
            verification=config.verification,
            progress=progress,
        )
        sources = {"predictor": str(run.predictor), "table": str(path or "none")}
        predictions, title = predictions_of(predictor, space), f"{config.run_name} on {config.device.name}"
        save_all(result, run.search(name), sources, title=title, predictions=predictions)
    print(report(result, limits, predictions))
    print(f"result: {run.search(name)} (and .png, .csv)")
    if measure and measure.next_step:
        print(measure.next_step)
    print(next_command(config, "export", {"subnet": name + (_middle(result) if plan.finds_front else "")}))
    return name, result


def _latencies(
    config: SearchConfig, table: MeasuredTable | None, space: ImageSpace
) -> tuple[Estimator | None, dict[str, tuple[Estimator, float]]]:
    """Return the latency on the device, if it is limited, and the latencies and limits on further ones."""
    latency = table.estimator(space, config.device, config.max_table_error) if table else None
    more_latencies = {
        name: (table_limit.estimator(space, config.max_table_error), table_limit.latency_ms)
        for name, table_limit in config.more_tables.items()
    }
    return latency, more_latencies


def _targets(config: SearchConfig, table: MeasuredTable | None) -> dict[str, LatencyTarget]:
    """Return what the limited latencies are for, by the names of the limits."""
    targets = {"latency_ms": table.target} if table else {}
    for name, table_limit in config.more_tables.items():
        targets[f"latency_ms on {name}"] = load_table(Path(table_limit.table)).target
    return targets


def _middle(result: SearchResult) -> str:
    """Return the limit, as in NAME@LIMIT, that the networks of the cheaper half of a front keep."""
    middle = result.front[len(result.front) // 2].values[result.limits[0].name]
    return f"@{rounded_up(middle, 4)}"


def predictions_of(predictor: Predictor, space: ImageSpace) -> Predictions:
    """Return what a fitted predictor knows of its own errors; an imported one knows nothing."""
    from predictors.model.predictor import AccuracyPredictor

    if not isinstance(predictor, AccuracyPredictor):
        return Predictions(space, predictor)
    info, images = predictor.info, predictor.info.provenance.get("validation", "")
    return Predictions(space, predictor, predictor.uncertainty, info.best_value, info.num_records, images)


def _measure(
    config: SearchConfig,
    table: MeasuredTable | None,
    space: ImageSpace,
    kit: Path,
    progress: ProgressCallback,
) -> MeasureHere | MeasureByKit:
    """Return what measures the candidates of a verified search: this machine or a kit."""
    from latency_tables.remote.verification import choose_measure

    processes = config.verification.processes
    networks = networks_of(config, space)
    return choose_measure(
        table, config.device, networks, processes, kit, config.from_kit, config.seed, progress
    )


if __name__ == "__main__":
    search_for_device()
