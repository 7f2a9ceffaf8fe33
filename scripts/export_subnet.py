"""Export a sub-network as a bundle that runs, e.g. `export_subnet.py run_name=digits subnet=largest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig
from search.result.select import select_subnet


@dataclass(frozen=True, kw_only=True)
class ExportConfig(RunConfig):
    """Settings of `conf/export_subnet.yaml`."""

    subnet: str
    name: str | None
    formats: tuple[str, ...]
    precision: str
    keep_layers: str | tuple[int, ...]
    max_loss: float
    calibration_images: int
    quantisation_images: int


@command("export_subnet", ExportConfig)
def export_subnet(config: ExportConfig) -> Path:
    """Extract, recalibrate and export the sub-network and return the bundle's folder."""
    from ofa.compression.quantisation.search_precision import MixedPrecisionSettings, samples_of
    from ofa.data.preprocessing import Preprocessing
    from ofa.evaluation.evaluate import SubnetEvaluator
    from ofa.export.card import subnet_card, top1_metric
    from ofa.export.precision import TargetPrecision
    from ofa.export.write import export_bundle
    from ofa.runs.trained import open_run

    keep = MixedPrecisionSettings(config.keep_layers, config.max_loss)
    run = open_run(config)
    selection = select_subnet(run.info.space, config.subnet, run.directory.path / "search")
    evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=config.calibration_images)
    network = evaluator.network(selection.config).cpu()
    facts = run.data.info
    card = subnet_card(
        run.info.space,
        selection.config,
        Preprocessing(facts.mean, facts.std, centre_share=facts.centre_share),
        facts.class_names,
        expected_metric=top1_metric(selection.expected_value),
        expected_latency_ms=selection.expected_latency_ms,
        provenance={"run": config.run_name, "subnet": config.subnet, "supernet": run.info.sha256},
    )
    samples = samples_of(evaluator, selection.config.resolution, config.quantisation_images)
    target = TargetPrecision(config.precision, samples, keep)
    path = run.directory.bundles / (config.name or Path(config.subnet).name.removesuffix(".json"))
    with progress_bar("exporting") as progress:
        report = export_bundle(network, card, path, config.formats, target=target, progress=progress)
    print(*report.lines(), sep="\n")
    print(f"next: python scripts/evaluate_subnet.py run_name={config.run_name} bundle={path.name}")
    return path


if __name__ == "__main__":
    export_subnet()
