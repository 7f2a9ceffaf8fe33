"""Export a sub-network as a bundle that runs, e.g. `ofa export run_name=digits subnet=largest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.progress import progress_bar
from ofa.common.shipped import preset_names
from ofa.common.text_settings import Name, PathText
from ofa.launch import command, job_name
from ofa.runs.config import RunConfig, next_command
from search.result.select import SelectedSubnet, select_subnet

if TYPE_CHECKING:
    from ofa.export.write import ExportReport


@dataclass(frozen=True, kw_only=True)
class ExportConfig(RunConfig):
    """Settings of `conf/export_subnet.yaml`."""

    subnet: PathText
    name: Name | None
    formats: tuple[str, ...]
    sign_key: PathText | None
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
    from ofa.export.expectation import export_lines
    from ofa.export.signature import sign_lines, signer_of
    from ofa.runs.trained import open_run
    from predictors.expectation import predicted_value

    mixed_precision = MixedPrecisionSettings(config.keep_layers, config.max_loss)
    named_settings = ["run_name", "name"] if config.name else ["run_name", "subnet"]
    name = job_name(config.name or Path(config.subnet).name.removesuffix(".json"), named_settings)
    signer = signer_of(config.sign_key)
    run = open_run(config)
    selection = select_subnet(run.info.space, config.subnet, run.directory.path / "search")
    value, expected = selection.expected_value, None
    if value is not None:
        expected = predicted_value(
            value,
            selection.config,
            run.directory.predictor,
            run.info.space,
            selection.metric,
            num_candidates=selection.num_candidates,
        )
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
            expected_metric=expected,
            expected_latency_ms=selection.expected_latency_ms,
            latency_targets=selection.latency_targets,
            provenance={"subnet": config.subnet},
            progress=progress,
        )
    signed = sign_lines(report.path, signer)
    print(*report.lines(), *export_lines(expected, report.files), *signed, sep="\n")
    settings = {"bundle": report.path.name, **_measured_as_expected(selection, report)}
    print(next_command(config, "evaluate", settings))
    return report.path


def _measured_as_expected(selection: SelectedSubnet, report: ExportReport) -> dict[str, str]:
    """Return settings by which the evaluation times the file and the device that a latency is expected of."""
    from ofa.export.expectation import format_for

    for target in selection.latency_targets.values():
        name = format_for(target, report.files)
        if name is not None and target.device in preset_names("device"):
            return {"format": name, "device": target.device}
    return {}


if __name__ == "__main__":
    export_subnet()
