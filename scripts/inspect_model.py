"""Report what of a PyTorch model can vary, and why the rest stays, e.g. `ofa inspect model=my_module:Net`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.disk import check_writable
from ofa.common.files import json_writer, write_atomic
from ofa.common.progress import progress_bar
from ofa.common.text_settings import PathText
from ofa.graph.settings import ConversionSettings, CostLimits
from ofa.launch import command

if TYPE_CHECKING:
    from ofa.graph.report import ConversionReport


@dataclass(frozen=True, kw_only=True)
class InspectModelConfig(ConversionSettings):
    """Settings of `conf/inspect_model.yaml`."""

    limits: CostLimits
    out: PathText | None
    runs_dir: PathText
    threads: int | None


@command("inspect_model", InspectModelConfig)
def inspect_model(config: InspectModelConfig) -> ConversionReport:
    """Print the report, write it as JSON and return it."""
    path = Path(config.out) if config.out else None
    if path is not None:
        check_writable(path.absolute().parent)
    shape = "x".join(map(str, config.example_shape))
    print(f"converting {config.model.name} for inputs of {shape}; large networks take minutes", flush=True)

    from ofa.common.accelerator import threads_set
    from ofa.graph.from_settings import supernet_of
    from ofa.graph.report_text import report_lines

    with threads_set(config.threads), progress_bar("converting"):
        supernet = supernet_of(config)
    assert supernet.report is not None
    report = supernet.report.with_limits(config.limits.by_cost)
    print("\n".join(report_lines(report)))
    if path is not None:
        write_atomic(path, json_writer(report.to_dict()))
        print(f"report: {path}")
    report.check_limits()
    return report


if __name__ == "__main__":
    inspect_model()
