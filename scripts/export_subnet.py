"""Export a sub-network as a bundle that runs, e.g. `ofa export run_name=digits subnet=largest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar
from ofa.common.text_settings import Name, PathText
from ofa.launch import command, job_name
from ofa.runs.config import RunConfig, next_command
from search.result.select import select_subnet


@dataclass(frozen=True, kw_only=True)
class ExportConfig(RunConfig):
    """Settings of `conf/export_subnet.yaml`."""

    subnet: PathText
    name: Name | None
    formats: tuple[str, ...]
    precision: str
    keep_layers: str | tuple[int, ...]
    max_loss: float
    calibration_images: int
    quantisation_images: int


@command("export_subnet", ExportConfig)
def export_subnet(config: ExportConfig) -> Path:
    """Extract, recalibrate and export the sub-network and return the bundle's folder."""
    import ofa.runs.export
    from ofa.compression.quantisation.search_precision import MixedPrecisionSettings
    from ofa.export.card import top1_metric
    from ofa.runs.trained import open_run

    mixed_precision = MixedPrecisionSettings(config.keep_layers, config.max_loss)
    named_settings = ["run_name", "name"] if config.name else ["run_name", "subnet"]
    name = job_name(config.name or Path(config.subnet).name.removesuffix(".json"), named_settings)
    run = open_run(config)
    selection = select_subnet(run.info.space, config.subnet, run.directory.path / "search")
    with progress_bar("exporting") as progress:
        report = ofa.runs.export.export_subnet(
            run,
            selection.config,
            name,
            formats=config.formats,
            precision=config.precision,
            mixed_precision=mixed_precision,
            calibration_images=config.calibration_images,
            quantisation_images=config.quantisation_images,
            expected_metric=top1_metric(selection.expected_value),
            expected_latency_ms=selection.expected_latency_ms,
            provenance={"subnet": config.subnet},
            progress=progress,
        )
    print(*report.lines(), sep="\n")
    print(next_command(config, "evaluate", {"bundle": report.path.name}))
    return report.path


if __name__ == "__main__":
    export_subnet()
